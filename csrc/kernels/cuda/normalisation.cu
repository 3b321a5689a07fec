// Batch normalisation: column sums of chunks of rows, what the chunks' sums become, and its backward.
#include "kernels/columns.h"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/column_totals.cuh"
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int column_threads = column_block * column_lanes;

// One block for each chunk of rows and 64 columns.
template <class Args>
dim3 chunk_grid(const Args& args) {
    return dim3(static_cast<unsigned>((args.rows + args.sums.chunk - 1) / args.sums.chunk),
                static_cast<unsigned>((args.columns + column_block - 1) / column_block));
}
// The rows of this block's chunk, counted from those given, and its number in the batch.
struct Chunk {
    std::int64_t index, begin, rows;
};
template <class Args>
__device__ __forceinline__ Chunk chunk_of_block(const Args& args) {
    const std::int64_t begin = blockIdx.x * args.sums.chunk, left = args.rows - begin;
    return {args.first_row / args.sums.chunk + blockIdx.x, begin, left < args.sums.chunk ? left : args.sums.chunk};
}

// Two passes: squares are of deviations, so a large mean costs no digits.
template <class T>
__global__ void __launch_bounds__(column_threads, 1) moments_kernel(const __grid_constant__ MomentsArgs<T> args) {
    using C = Compute<T>;
    __shared__ ColumnMemory<C> memory;
    const Chunk chunk = chunk_of_block(args);
    const std::int64_t j = blockIdx.y * column_block + column_of_thread();
    const bool exists = j < args.columns;
    auto x = [&](std::int64_t i) { return exists ? read(args.in, chunk.begin + i, j) : C(0); };
    const C mean = sum_rows(chunk.rows, memory, x) / static_cast<C>(chunk.rows);
    const C squares = fold_rows(chunk.rows, memory, [&](C sum, std::int64_t i) {
        const C apart = x(i) - mean;
        return multiply_add(apart, apart, sum);
    });
    if (!exists || !leads_column()) return;
    args.sums.first(chunk.index)[j] = mean;
    args.sums.second(chunk.index)[j] = squares;
}

template <class T>
__global__ void __launch_bounds__(column_threads) norm_sums_kernel(const __grid_constant__ NormSumsArgs<T> args) {
    using C = Compute<T>;
    __shared__ ColumnMemory<C> memory;
    const Chunk chunk = chunk_of_block(args);
    const std::int64_t j = blockIdx.y * column_block + column_of_thread();
    const bool exists = j < args.columns;
    const C mean = exists ? args.mean[j] : C(0), inverse = exists ? args.inverse_deviation[j] : C(0);
    auto d = [&](std::int64_t i) {
        if (!exists) return C(0);
        const C delta = read(args.delta, chunk.begin + i, j);
        return args.mask.data ? delta * read(args.mask, chunk.begin + i, j) : delta;
    };
    const C sum = sum_rows(chunk.rows, memory, d);
    const C sum_xhat = fold_rows(chunk.rows, memory, [&](C so_far, std::int64_t i) {
        const C z = exists ? read(args.z, chunk.begin + i, j) : C(0);
        return multiply_add(d(i), (z - mean) * inverse, so_far);
    });
    if (!exists || !leads_column()) return;
    args.sums.first(chunk.index)[j] = sum;
    args.sums.second(chunk.index)[j] = sum_xhat;
}

template <class C, int n>
struct NormSlopes {
    NormSlope<C> at[n];
};
template <class C, int n>
__device__ __forceinline__ NormSlopes<C, n> norm_slopes(const Stretch<C, n>& mean, const Stretch<C, n>& inverse,
                                                        const Stretch<C, n>& scale, const Stretch<C, n>& mean_d,
                                                        const Stretch<C, n>& mean_dx) {
    NormSlopes<C, n> slopes;
#pragma unroll
    for (int c = 0; c < n; ++c)
        slopes.at[c] = norm_slope(mean.at[c], inverse.at[c], scale.at[c], mean_d.at[c], mean_dx.at[c]);
    return slopes;
}
template <int n, class T>
__device__ __forceinline__ NormSlopes<Compute<T>, n> norm_slopes(const NormBackwardArgs<T>& args, std::int64_t j) {
    if (!args.z.data) return {};
    return norm_slopes(read<n>(args.mean + j), read<n>(args.inverse_deviation + j), read<n>(args.scale + j),
                       read<n>(args.mean_d + j), read<n>(args.mean_dx + j));
}
template <int n, class T, class Kept>
__device__ __forceinline__ Stretch<Compute<T>, n> masked_delta(const NormBackwardArgs<T>& args, std::int64_t i,
                                                               std::int64_t j, const Kept& kept) {
    Stretch<Compute<T>, n> d = kept.template get<n>(args.delta, i, j);
    if (args.mask.data) each(d, Times(), read<n>(args.mask, i, j));
    return d;
}
template <int n, class T, class KeptDelta, class KeptZ>
__device__ __forceinline__ void go_back(const NormBackwardArgs<T>& args, const NormSlopes<Compute<T>, n>& slopes,
                                        std::int64_t i, std::int64_t j, LargestResult<T>& largest,
                                        const KeptDelta& kept_delta, const KeptZ& kept_z) {
    using C = Compute<T>;
    Stretch<C, n> d = masked_delta<n>(args, i, j, kept_delta);
    if (args.z.data)
        each(
            d, [](C x, C z, const NormSlope<C>& slope) { return slope(x, z); }, kept_z.template get<n>(args.z, i, j),
            slopes);
    write<n>(d, args.out, i, j);
    largest.add(d);
}

template <class T>
__global__ void norm_backward_kernel(const __grid_constant__ NormBackwardArgs<T> args, bool whole) {
    LargestResult<T> largest;
    visit_stretches(args.rows, args.columns, whole, [&](auto n, std::int64_t i, std::int64_t j) {
        go_back<n>(args, norm_slopes<n>(args, j), i, j, largest, NothingKept(), NothingKept());
    });
    largest.template keep_of_block<element_threads>(args.largest);
}

// A thread's rows of what a gradient goes back through.
template <class T, int n>
struct KeptGradient {
    KeptRows<T, n> delta, z;
    __device__ __forceinline__ KeptGradient(const NormBackwardArgs<T>& args, int rows, int first, std::int64_t j)
        : delta(args.delta, rows, first, j), z(args.z, rows, first, j) {}
    __device__ __forceinline__ void advance() { delta.advance(), z.advance(); }
};

// The column sums and all that follows from them, of a batch that has no more rows than `joined_rows`.
template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    undo_norm_kernel(const __grid_constant__ CombineNormSumsArgs<T> combine,
                     const __grid_constant__ NormBackwardArgs<T> args, bool whole) {
    begin_ahead();
    using C = Compute<T>;
    constexpr int together = rows_together<C>;
    __shared__ ColumnTotals totals;
    __shared__ double sums[2 * stretch_columns];
    __shared__ Stretch<C, stretch_columns> mean_d, mean_dx;
    const int rows = static_cast<int>(args.rows), own = static_cast<int>(threadIdx.x);
    visit_columns(args.columns, whole, [&](auto n, std::int64_t j) {
        using Kept = KeptGradient<T, n>;
        Kept kept(args, rows, own, j);
        const Stretch<C, n> mean = read<n>(args.mean + j), inverse = read<n>(args.inverse_deviation + j);
        const auto both = sum_own_rows<together>(
            rows, kept, [&](int first) { return Kept(args, rows, first, j); },
            [&](const Kept& some, int s, int i) {
                const Stretch<C, n> d = masked_delta<n>(args, i, j, some.delta[s]), z = some.z[s].numbers();
                Stretch<C, 2 * n> x;
#pragma unroll
                for (int c = 0; c < n; ++c) {
                    x.at[c] = d.at[c];
                    x.at[n + c] = d.at[c] * ((z.at[c] - mean.at[c]) * inverse.at[c]);
                }
                return x;
            });
        const Stretch<C, n> scale = read<n>(args.scale + j);
        add_threads(both, totals, [&](double total) {
            sums[own] = total;
            (own < n ? mean_d.at[own] : mean_dx.at[own - n]) = mean_of_sum(combine, total);
        });
        if (own < n) finish_norm_sums(combine, j + own, sums[own], sums[n + own]);
        const NormSlopes<C, n> slopes = norm_slopes(mean, inverse, scale, read<n>(mean_d.at), read<n>(mean_dx.at));
        LargestResult<T> largest;
#pragma unroll together
        for (int i = own; i < rows; i += total_threads, kept.advance())
            go_back<n>(args, slopes, i, j, largest, kept.delta[0], kept.z[0]);
        largest.template keep_of_block<total_threads>(args.largest);
    });
}

// Σ value(chunk) over the thread's chunks, which are added as rows are. Of some that are not there the first is read:
// reading none would be a branch, and one would wait for the other.
template <class Value>
__device__ __forceinline__ auto sum_own_chunks(std::int64_t all, Value value) {
    constexpr int together = 4;
    struct Some {
        decltype(value(0)) at[together];
    };
    const int chunks = static_cast<int>(all);
    const auto read = [&](int first) {
        Some some;
#pragma unroll
        for (int s = 0; s < together; ++s) {
            const int chunk = first + s * total_threads;
            some.at[s] = value(chunk < chunks ? chunk : 0);
        }
        return some;
    };
    return sum_own_rows<together>(chunks, read(static_cast<int>(threadIdx.x)), read,
                                  [](const Some& some, int s, int) { return some.at[s]; });
}

template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    combine_moments_kernel(const __grid_constant__ CombineMomentsArgs<T> args) {
    __shared__ ColumnTotals totals;
    __shared__ double means[stretch_columns];
    const std::int64_t chunks = args.sums.chunks();
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(args.end - args.begin, true, [&](auto n, std::int64_t column) {
        const std::int64_t j = args.begin + column;
        const auto sum = sum_own_chunks(chunks, [&](std::int64_t chunk) {
            Stretch<double, n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) x.at[c] = weighted_mean(args.sums, chunk, j + c);
            return x;
        });
        add_threads(sum, totals, [&](double total) { means[own] = total / static_cast<double>(args.sums.rows); });
        const auto squares = sum_own_chunks(chunks, [&](std::int64_t chunk) {
            Stretch<double, n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) x.at[c] = shifted_squares(args.sums, chunk, j + c, means[c]);
            return x;
        });
        add_threads(squares, totals, [&](double total) {
            ColumnMoments moments;
            moments.mean = means[own], moments.squares = total;
            finish_moments(args, j + own, moments);
        });
    });
}

template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    combine_norm_sums_kernel(const __grid_constant__ CombineNormSumsArgs<T> args) {
    __shared__ ColumnTotals totals;
    __shared__ double sums[2 * stretch_columns];
    const std::int64_t chunks = args.sums.chunks();
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(args.end - args.begin, true, [&](auto n, std::int64_t column) {
        const std::int64_t j = args.begin + column;
        const auto both = sum_own_chunks(chunks, [&](std::int64_t chunk) {
            Stretch<double, 2 * n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) {
                x.at[c] = static_cast<double>(args.sums.first(chunk)[j + c]);
                x.at[n + c] = static_cast<double>(args.sums.second(chunk)[j + c]);
            }
            return x;
        });
        add_threads(both, totals, [&](double total) { sums[own] = total; });
        if (own < n) finish_norm_sums(args, j + own, sums[own], sums[n + own]);
    });
}

template <class T>
struct RunningCoefficients {
    RunningCoefficientsArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const { running_coefficients_of_column(args, j); }
};

}  // namespace

template <class T>
void moments(const MomentsArgs<T>& args) {
    const dim3 grid = chunk_grid(args);
    if (grid.x > 0 && grid.y > 0) launch<moments_kernel<T>>(grid, column_threads, args);
}
template <class T>
void norm_sums(const NormSumsArgs<T>& args) {
    const dim3 grid = chunk_grid(args);
    if (grid.x > 0 && grid.y > 0) launch<norm_sums_kernel<T>>(grid, column_threads, args);
}
template <class T>
bool is_on_boundaries(const NormBackwardArgs<T>& args) {
    return on_boundaries(args.delta, args.mask, args.z, args.out, args.mean, args.inverse_deviation, args.scale,
                         args.mean_d, args.mean_dx);
}
template <class T>
void norm_backward(const NormBackwardArgs<T>& args) {
    const bool whole = is_on_boundaries(args);
    launch_measuring<norm_backward_kernel<T>>(args.largest, args.rows, args.columns, whole, args, whole);
}
template <class T>
void undo_norm(const CombineNormSumsArgs<T>& combine, const NormBackwardArgs<T>& args) {
    const bool whole = is_on_boundaries(args);
    const dim3 grid = column_grid(args.columns, whole);
    if (grid.x > 0) launch_ahead<undo_norm_kernel<T>>(0, grid, total_threads, combine, args, whole);
}
template <class T>
void combine_moments(const CombineMomentsArgs<T>& args) {
    const dim3 grid = column_grid(args.end - args.begin, true);
    if (grid.x > 0) launch<combine_moments_kernel<T>>(grid, total_threads, args);
}
template <class T>
void combine_norm_sums(const CombineNormSumsArgs<T>& args) {
    const dim3 grid = column_grid(args.end - args.begin, true);
    if (grid.x > 0) launch<combine_norm_sums_kernel<T>>(grid, total_threads, args);
}
template <class T>
void running_coefficients(const RunningCoefficientsArgs<T>& args) {
    for_elements(1, args.columns, RunningCoefficients<T>{args});
}

#define RC_INSTANTIATE(T)                                                               \
    template void moments(const MomentsArgs<T>&);                                       \
    template void norm_sums(const NormSumsArgs<T>&);                                    \
    template void norm_backward(const NormBackwardArgs<T>&);                            \
    template void undo_norm(const CombineNormSumsArgs<T>&, const NormBackwardArgs<T>&); \
    template void combine_moments(const CombineMomentsArgs<T>&);                        \
    template void combine_norm_sums(const CombineNormSumsArgs<T>&);                     \
    template void running_coefficients(const RunningCoefficientsArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

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
template <int n, class T>
__device__ __forceinline__ NormSlopes<Compute<T>, n> norm_slopes(const NormBackwardArgs<T>& args, std::int64_t j) {
    using C = Compute<T>;
    NormSlopes<C, n> slopes = {};
    if (!args.z.data) return slopes;
    const Stretch<C, n> mean = read<n>(args.mean + j), inverse = read<n>(args.inverse_deviation + j),
                        scale = read<n>(args.scale + j), mean_d = read<n>(args.mean_d + j),
                        mean_dx = read<n>(args.mean_dx + j);
#pragma unroll
    for (int c = 0; c < n; ++c)
        slopes.at[c] = norm_slope(mean.at[c], inverse.at[c], scale.at[c], mean_d.at[c], mean_dx.at[c]);
    return slopes;
}
template <int n, class T>
__device__ __forceinline__ Stretch<Compute<T>, n> masked_delta(const NormBackwardArgs<T>& args, std::int64_t i,
                                                               std::int64_t j) {
    Stretch<Compute<T>, n> d = read<n>(args.delta, i, j);
    if (args.mask.data) each(d, Times(), read<n>(args.mask, i, j));
    return d;
}
template <int n, class T>
__device__ __forceinline__ void go_back(const NormBackwardArgs<T>& args, const NormSlopes<Compute<T>, n>& slopes,
                                        std::int64_t i, std::int64_t j, LargestResult<T>& largest) {
    using C = Compute<T>;
    Stretch<C, n> d = masked_delta<n>(args, i, j);
    if (args.z.data)
        each(d, [](C x, C z, const NormSlope<C>& slope) { return slope(x, z); }, read<n>(args.z, i, j), slopes);
    write<n>(d, args.out, i, j);
    largest.add(d);
}

template <class T>
__global__ void norm_backward_kernel(const __grid_constant__ NormBackwardArgs<T> args, bool whole) {
    LargestResult<T> largest;
    visit_stretches(args.rows, args.columns, whole, [&](auto n, std::int64_t i, std::int64_t j) {
        go_back<n>(args, norm_slopes<n>(args, j), i, j, largest);
    });
    largest.template keep_of_block<element_threads>(args.largest);
}

// The column sums and all that follows from them, of a batch that has no more rows than `joined_rows`.
template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    undo_norm_kernel(const __grid_constant__ CombineNormSumsArgs<T> combine,
                     const __grid_constant__ NormBackwardArgs<T> args, bool whole) {
    using C = Compute<T>;
    constexpr int together = 8 / sizeof(C);
    __shared__ ColumnTotals totals;
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(args.columns, whole, [&](auto n, std::int64_t j) {
        const Stretch<C, n> mean = read<n>(args.mean + j), inverse = read<n>(args.inverse_deviation + j);
        sum_columns<together>(args.rows, totals, [&](std::int64_t i) {
            const Stretch<C, n> d = masked_delta<n>(args, i, j), z = read<n>(args.z, i, j);
            Stretch<C, 2 * n> both;
#pragma unroll
            for (int c = 0; c < n; ++c) {
                both.at[c] = d.at[c];
                both.at[n + c] = d.at[c] * ((z.at[c] - mean.at[c]) * inverse.at[c]);
            }
            return both;
        });
        if (own < n) finish_norm_sums(combine, j + own, totals.at[own], totals.at[n + own]);
        __syncthreads();
        const NormSlopes<C, n> slopes = norm_slopes<n>(args, j);
        LargestResult<T> largest;
        for (std::int64_t i = own; i < args.rows; i += total_threads) go_back<n>(args, slopes, i, j, largest);
        largest.keep(args.largest);
    });
}

// Chunks of rows are added as rows are.
template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    combine_moments_kernel(const __grid_constant__ CombineMomentsArgs<T> args) {
    constexpr int together = 2;
    __shared__ ColumnTotals totals;
    __shared__ double means[stretch_columns];
    const std::int64_t chunks = args.sums.chunks();
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(args.end - args.begin, true, [&](auto n, std::int64_t column) {
        const std::int64_t j = args.begin + column;
        sum_columns<together>(chunks, totals, [&](std::int64_t chunk) {
            Stretch<double, n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) x.at[c] = weighted_mean(args.sums, chunk, j + c);
            return x;
        });
        if (own < n) means[own] = totals.at[own] / static_cast<double>(args.sums.rows);
        __syncthreads();
        sum_columns<together>(chunks, totals, [&](std::int64_t chunk) {
            Stretch<double, n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) x.at[c] = shifted_squares(args.sums, chunk, j + c, means[c]);
            return x;
        });
        if (own < n) {
            ColumnMoments moments;
            moments.mean = means[own], moments.squares = totals.at[own];
            finish_moments(args, j + own, moments);
        }
        __syncthreads();
    });
}

template <class T>
__global__ void __launch_bounds__(total_threads, 1)
    combine_norm_sums_kernel(const __grid_constant__ CombineNormSumsArgs<T> args) {
    constexpr int together = 2;
    __shared__ ColumnTotals totals;
    const std::int64_t chunks = args.sums.chunks();
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(args.end - args.begin, true, [&](auto n, std::int64_t column) {
        const std::int64_t j = args.begin + column;
        sum_columns<together>(chunks, totals, [&](std::int64_t chunk) {
            Stretch<double, 2 * n> x;
#pragma unroll
            for (int c = 0; c < n; ++c) {
                x.at[c] = static_cast<double>(args.sums.first(chunk)[j + c]);
                x.at[n + c] = static_cast<double>(args.sums.second(chunk)[j + c]);
            }
            return x;
        });
        if (own < n) finish_norm_sums(args, j + own, totals.at[own], totals.at[n + own]);
        __syncthreads();
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
    if (grid.x > 0) launch<undo_norm_kernel<T>>(grid, total_threads, combine, args, whole);
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

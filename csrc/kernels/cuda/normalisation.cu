// Batch normalisation: column sums of chunks of rows, what the chunks' sums become, and its backward.
#include "kernels/columns.h"
#include "kernels/cuda/column_sums.cuh"
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

template <class T>
__global__ void norm_backward_kernel(const __grid_constant__ NormBackwardArgs<T> args, bool whole) {
    using C = Compute<T>;
    LargestResult<T> largest;
    visit_stretches(args.rows, args.columns, whole, [&](auto n, std::int64_t i, std::int64_t j) {
        Stretch<C, n> d = read<n>(args.delta, i, j);
        if (args.mask.data) each(d, Times(), read<n>(args.mask, i, j));
        if (args.z.data)
            each(
                d,
                [](C x, C z, C mean, C inverse, C scale, C mean_d, C mean_dx) {
                    return norm_slope(mean, inverse, scale, mean_d, mean_dx)(x, z);
                },
                read<n>(args.z, i, j), read<n>(args.mean + j), read<n>(args.inverse_deviation + j),
                read<n>(args.scale + j), read<n>(args.mean_d + j), read<n>(args.mean_dx + j));
        write<n>(d, args.out, i, j);
        largest.add(d);
    });
    largest.keep(args.largest);
}

template <class T>
struct CombineMoments {
    CombineMomentsArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const { combine_moments_of_column(args, args.begin + j); }
};
template <class T>
struct CombineNormSums {
    CombineNormSumsArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        combine_norm_sums_of_column(args, args.begin + j);
    }
};
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
void norm_backward(const NormBackwardArgs<T>& args) {
    const bool whole = on_boundaries(args.delta, args.mask, args.z, args.out, args.mean, args.inverse_deviation,
                                     args.scale, args.mean_d, args.mean_dx);
    const std::int64_t blocks = blocks_for(stretch_count(args.rows, args.columns, whole), element_threads, most_blocks);
    if (blocks > 0)
        launch<norm_backward_kernel<T>>(dim3(static_cast<unsigned>(blocks)), element_threads, args, whole);
}
template <class T>
void combine_moments(const CombineMomentsArgs<T>& args) {
    for_elements(1, args.end - args.begin, CombineMoments<T>{args});
}
template <class T>
void combine_norm_sums(const CombineNormSumsArgs<T>& args) {
    for_elements(1, args.end - args.begin, CombineNormSums<T>{args});
}
template <class T>
void running_coefficients(const RunningCoefficientsArgs<T>& args) {
    for_elements(1, args.columns, RunningCoefficients<T>{args});
}

#define RC_INSTANTIATE(T)                                           \
    template void moments(const MomentsArgs<T>&);                   \
    template void norm_sums(const NormSumsArgs<T>&);                \
    template void norm_backward(const NormBackwardArgs<T>&);        \
    template void combine_moments(const CombineMomentsArgs<T>&);    \
    template void combine_norm_sums(const CombineNormSumsArgs<T>&); \
    template void running_coefficients(const RunningCoefficientsArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

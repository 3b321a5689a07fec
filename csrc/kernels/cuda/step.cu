// What is decided of a whole batch, and what follows for what is trained.
//
// Invariant: the result does not depend on the order in which blocks run: what is added to what follows from the number
// of terms alone, and blocks leave their sums side by side.
#include <algorithm>

#include "kernels/columns.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/elements.cuh"
#include "math/step.h"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = 1024;
constexpr int sums_of_thread = 8;  // as many terms are on their way at a time

// Σ term(i) of the block's share of i < size, which the grid's threads take in turns. Of the first thread.
template <class Term>
__device__ __forceinline__ double sum_terms(std::int64_t size, double (&memory)[threads], Term term) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * threads;
    double sums[sums_of_thread] = {};
#pragma unroll 1
    for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; first < size;
         first += sums_of_thread * step) {
        double terms[sums_of_thread];  // all are read before the first is added
#pragma unroll
        for (int s = 0; s < sums_of_thread; ++s) terms[s] = first + s * step < size ? term(first + s * step) : 0;
#pragma unroll
        for (int s = 0; s < sums_of_thread; ++s) sums[s] = sums[s] + terms[s];
    }
#pragma unroll
    for (int apart = sums_of_thread / 2; apart > 0; apart /= 2)
#pragma unroll
        for (int s = 0; s < apart; ++s) sums[s] = sums[s] + sums[s + apart];
    return sum_block(sums[0], memory);
}

template <class T>
__global__ void __launch_bounds__(threads, 1) conclude_kernel(const __grid_constant__ ConcludeArgs<T> args) {
    __shared__ double memory[threads];
    const double loss = sum_terms(args.n_losses, memory, [&](std::int64_t i) { return args.losses[i]; });
    if (threadIdx.x == 0) conclude_batch(args, loss);
}

template <class T>
__global__ void __launch_bounds__(threads, 1) squares_kernel(const __grid_constant__ SquaresArgs<T> args) {
    __shared__ double memory[threads];
    const double sum = sum_terms(args.size, memory, [&](std::int64_t i) {
        const double g = static_cast<double>(args.gradient[i]);
        return g * g;
    });
    if (threadIdx.x == 0) args.out[blockIdx.x] = sum;
    const unsigned part = blockIdx.x * threads + threadIdx.x;
    if (part >= gridDim.x && part < square_parts) args.out[part] = 0;
}

template <class T>
__global__ void __launch_bounds__(threads, 1) clip_kernel(const __grid_constant__ ClipArgs<T> args) {
    __shared__ double memory[threads];
    const double sum = sum_terms(args.count, memory, [&](std::int64_t i) { return args.squares[i]; });
    if (threadIdx.x > 0) return;
    *args.norm = ::sqrt(sum);
    *args.factor = clip_factor(*args.norm, args.largest);
}

template <class T>
struct Commit {
    CommitArgs<T> args;
    __device__ void operator()(const CommittedVector<T>& vector, std::int64_t j) const {
        vector.to[j] = vector.from[j];
    }
};

template <class T>
struct Scale {
    ScaleArgs<T> args;
    template <int n>
    __device__ void operator()(Columns<n>, std::int64_t, std::int64_t j) const {
        using C = Compute<T>;
        const double factor = *args.factor;
        if (factor == 1) return;
        Stretch<C, n> g = read<n>(args.gradient + j);
        each(g, [&](C x) { return static_cast<C>(static_cast<double>(x) * factor); });
        write<n>(g, args.gradient + j);
    }
};

template <class T>
struct Overflowed {
    OverflowedArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        if (!is_finite(args.now[j]) && is_finite(args.before[j])) atomicExch(args.found, 1);
    }
};

}  // namespace

template <class T>
void conclude(const ConcludeArgs<T>& args) {
    launch<conclude_kernel<T>>(dim3(1), threads, args);
}
template <class T>
void squares(const SquaresArgs<T>& args) {
    constexpr std::int64_t worth_a_block = threads * sums_of_thread;
    const std::int64_t blocks = (args.size + worth_a_block - 1) / worth_a_block;
    launch<squares_kernel<T>>(dim3(static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, square_parts))), threads,
                              args);
}
template <class T>
void clip(const ClipArgs<T>& args) {
    launch<clip_kernel<T>>(dim3(1), threads, args);
}
template <class T>
void commit(const CommitArgs<T>& args) {
    for_vectors(Commit<T>{args});
}
template <class T>
void scale(const ScaleArgs<T>& args) {
    for_stretches(1, args.size, on_boundary(args.gradient), Scale<T>{args});
}
template <class T>
void overflowed(const OverflowedArgs<T>& args) {
    for_elements(1, args.size, Overflowed<T>{args});
}

#define RC_INSTANTIATE(T)                           \
    template void conclude(const ConcludeArgs<T>&); \
    template void squares(const SquaresArgs<T>&);   \
    template void clip(const ClipArgs<T>&);         \
    template void commit(const CommitArgs<T>&);     \
    template void scale(const ScaleArgs<T>&);       \
    template void overflowed(const OverflowedArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

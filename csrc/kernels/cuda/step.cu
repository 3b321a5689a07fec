// What is decided of a whole batch, and what follows for what is trained.
//
// Invariant: the result does not depend on the order in which blocks run: floats are added by one block, in a fixed
// order.
#include "kernels/columns.h"
#include "kernels/cuda/elements.cuh"
#include "math/step.h"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = 256;

// The sum of the threads' values, in the first thread. Pairs that lie the same way apart are added each time, so the
// order is fixed. Called by the whole block.
__device__ __forceinline__ double sum_block(double value, double (&memory)[threads]) {
    memory[threadIdx.x] = value;
    for (unsigned apart = threads / 2; apart > 0; apart /= 2) {
        __syncthreads();
        if (threadIdx.x < apart) memory[threadIdx.x] = memory[threadIdx.x] + memory[threadIdx.x + apart];
    }
    __syncthreads();
    return memory[0];
}

template <class T>
__global__ void __launch_bounds__(threads) conclude_kernel(const __grid_constant__ ConcludeArgs<T> args) {
    begin_kernel();
    __shared__ double memory[threads];
    double loss = 0;
    for (std::int64_t first = 0; first < args.rows; first += threads) {
        const std::int64_t i = first + threadIdx.x;
        if (i < args.rows) memory[threadIdx.x] = args.row_loss[i];
        __syncthreads();
        if (threadIdx.x == 0)
            for (int k = 0; k < threads && first + k < args.rows; ++k) loss = loss + memory[k];
        __syncthreads();
    }
    if (threadIdx.x == 0) conclude_batch(args, loss);
}

template <class T>
__global__ void __launch_bounds__(threads) squares_kernel(const __grid_constant__ SquaresArgs<T> args) {
    begin_kernel();
    __shared__ double memory[threads];
    double total = 0;
    for (std::int64_t first = 0; first < args.size; first += square_stretch) {
        double sum = 0;
        for (std::int64_t at = first + threadIdx.x; at < first + square_stretch && at < args.size; at += threads) {
            const double g = static_cast<double>(args.gradient[at]);
            sum = multiply_add(g, g, sum);
        }
        total = total + sum_block(sum, memory);
        __syncthreads();
    }
    if (threadIdx.x == 0) *args.out = total;
}

template <class T>
struct Clip {
    ClipArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t) const {
        double sum = 0;
        for (std::int64_t i = 0; i < args.count; ++i) sum = sum + args.squares[i];
        *args.norm = ::sqrt(sum);
        *args.factor = clip_factor(*args.norm, args.largest);
    }
};

template <class T>
struct Commit {
    CommitArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        if (permits(args.permission)) args.to[j] = args.from[j];
    }
};

template <class T>
struct Scale {
    ScaleArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        const double factor = *args.factor;
        if (factor != 1) args.gradient[j] = static_cast<Compute<T>>(static_cast<double>(args.gradient[j]) * factor);
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
    launch<squares_kernel<T>>(dim3(1), threads, args);
}
template <class T>
void clip(const ClipArgs<T>& args) {
    for_elements(1, 1, Clip<T>{args}, 1);
}
template <class T>
void commit(const CommitArgs<T>& args) {
    for_elements(1, args.size, Commit<T>{args});
}
template <class T>
void scale(const ScaleArgs<T>& args) {
    for_elements(1, args.size, Scale<T>{args});
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

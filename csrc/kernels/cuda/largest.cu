// The largest magnitude of an array.
//
// Invariant: the result does not depend on the order in which blocks run: maxima are of integers.
#include <cstring>

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = 256, warp = 32;

// Magnitudes compare as integers do, and so a NaN is the largest of all: no comparison of floats would keep it.
__device__ __forceinline__ unsigned long long magnitude_bits(double x) {
    unsigned long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & ~(1ull << 63);
}

template <class T>
__global__ void __launch_bounds__(threads) largest_kernel(const __grid_constant__ LargestArgs<T> args) {
    const std::int64_t all = args.rows * args.columns, step = static_cast<std::int64_t>(gridDim.x) * threads;
    unsigned long long most = 0;
    for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; at < all; at += step) {
        const unsigned long long bits =
            magnitude_bits(static_cast<double>(read(args.x, at / args.columns, at % args.columns)));
        most = bits > most ? bits : most;
    }
    for (int apart = warp / 2; apart > 0; apart /= 2) {
        const unsigned long long other = __shfl_xor_sync(0xffffffffu, most, apart);
        most = other > most ? other : most;
    }
    if (threadIdx.x % warp == 0) atomicMax(reinterpret_cast<unsigned long long*>(args.into), most);
}

}  // namespace

template <class T>
void largest(const LargestArgs<T>& args) {
    constexpr std::int64_t most = 1024;  // blocks: enough for a GPU to be full
    const std::int64_t blocks = (args.rows * args.columns + threads - 1) / threads;
    if (blocks > 0)
        launch<largest_kernel<T>>(dim3(static_cast<unsigned>(blocks < most ? blocks : most)), threads, args);
}

#define RC_INSTANTIATE(T) template void largest(const LargestArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

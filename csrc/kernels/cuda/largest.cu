// The largest magnitude of an array.
//
// Invariant: the result does not depend on the order in which blocks run: maxima are of integers.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = 256;

template <class T>
__global__ void __launch_bounds__(threads) largest_kernel(const __grid_constant__ LargestArgs<T> args) {
    begin_kernel();
    const std::int64_t all = args.rows * args.columns, step = static_cast<std::int64_t>(gridDim.x) * threads;
    unsigned long long most = 0;
    for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; at < all; at += step) {
        const unsigned long long bits =
            magnitude_bits(static_cast<double>(read(args.x, at / args.columns, at % args.columns)));
        most = bits > most ? bits : most;
    }
    keep_largest(most, args.into);
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

// The largest magnitude of an array.
//
// Invariant: the result does not depend on the order in which blocks run: maxima are of integers.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = 256;

// Magnitudes of the width that they have, which compare as numbers do; and the same as double's.
__device__ __forceinline__ std::uint32_t bits_of_magnitude(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & ~(1u << 31);
}
__device__ __forceinline__ unsigned long long bits_of_magnitude(double x) { return magnitude_bits(x); }
__device__ __forceinline__ unsigned long long widened(std::uint32_t magnitude) {
    float x;
    std::memcpy(&x, &magnitude, sizeof x);
    return magnitude_bits(static_cast<double>(x));
}
__device__ __forceinline__ unsigned long long widened(unsigned long long magnitude) { return magnitude; }

// `whole` as in `visit_stretches`.
template <class T>
__global__ void __launch_bounds__(threads) largest_kernel(const __grid_constant__ LargestArgs<T> args, bool whole) {
    auto most = bits_of_magnitude(Compute<T>(0));
    visit_stretches(args.rows, args.columns, whole, [&](auto n, std::int64_t i, std::int64_t j) {
        const Stretch<Compute<T>, n> x = read<n>(args.x, i, j);
#pragma unroll
        for (int c = 0; c < n; ++c) {
            const auto bits = bits_of_magnitude(x.at[c]);
            most = bits > most ? bits : most;
        }
    });
    keep_largest_of_block<threads>(widened(most), args.into);
}

}  // namespace

template <class T>
void largest(const LargestArgs<T>& args) {
    const bool whole = on_boundary(args.x);
    const std::int64_t blocks =
        blocks_for(stretch_count(args.rows, args.columns, whole), threads, most_measuring_blocks);
    if (blocks > 0) launch<largest_kernel<T>>(dim3(static_cast<unsigned>(blocks)), threads, args, whole);
}

#define RC_INSTANTIATE(T) template void largest(const LargestArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

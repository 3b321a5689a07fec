// The largest magnitude that threads have seen, kept in memory that all blocks share.
//
// Invariant: magnitudes compare as integers do, so that their maximum does not depend on the order of the blocks, and a
// NaN is the largest of all: no comparison of floats would keep it.
#pragma once

#include <cstring>

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {

__device__ __forceinline__ unsigned long long magnitude_bits(double x) {
    unsigned long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & ~(1ull << 63);
}

// By whole warps, both.
__device__ __forceinline__ unsigned long long largest_of_warp(unsigned long long most) {
    constexpr int warp = 32;
    for (int apart = warp / 2; apart > 0; apart /= 2) {
        const unsigned long long other = __shfl_xor_sync(0xffffffffu, most, apart);
        most = other > most ? other : most;
    }
    return most;
}
__device__ __forceinline__ void keep_largest(unsigned long long most, double* into) {
    constexpr int warp = 32;
    most = largest_of_warp(most);
    if (threadIdx.x % warp == 0) atomicMax(reinterpret_cast<unsigned long long*>(into), most);
}

// By a whole block, at once: where all blocks come to the end together, they wait for the same memory.
template <int threads>
__device__ __forceinline__ void keep_largest_of_block(unsigned long long most, double* into) {
    constexpr int warp = 32, warps = threads / warp;
    static_assert(threads % warp == 0 && warps <= warp, "whole warps, and a lane for each");
    __shared__ unsigned long long of_warps[warps];
    const unsigned long long of_warp = largest_of_warp(most);
    if (threadIdx.x % warp == 0) of_warps[threadIdx.x / warp] = of_warp;
    __syncthreads();
    if (threadIdx.x < warp) keep_largest(threadIdx.x < warps ? of_warps[threadIdx.x] : 0, into);
}

// Of a thread's results, as T holds them. Rounding to T keeps the order of magnitudes, so that the largest alone is
// rounded, at the end.
template <class T>
class LargestResult {
public:
    template <int n>
    __device__ __forceinline__ void add(const Stretch<Compute<T>, n>& x) {
        constexpr Bits sign = Bits{1} << (8 * sizeof(Bits) - 1);
#pragma unroll
        for (int c = 0; c < n; ++c) {
            Bits bits;
            std::memcpy(&bits, &x.at[c], sizeof bits);
            bits &= ~sign;
            most_ = bits > most_ ? bits : most_;
        }
    }
    // By whole warps; null: nobody asks.
    __device__ __forceinline__ void keep(double* into) const {
        if (into) keep_largest(magnitude(), into);
    }
    // The same, by a whole block.
    template <int threads>
    __device__ __forceinline__ void keep_of_block(double* into) const {
        if (into) keep_largest_of_block<threads>(magnitude(), into);
    }

private:
    __device__ __forceinline__ unsigned long long magnitude() const {
        Compute<T> x;
        std::memcpy(&x, &most_, sizeof x);
        T stored;
        write(x, stored);
        return magnitude_bits(static_cast<double>(read(stored)));
    }

    using Bits = std::conditional_t<sizeof(Compute<T>) == 8, std::uint64_t, std::uint32_t>;
    Bits most_ = 0;
};

// Enough for a GPU to be full, and no more than have to come to the same memory.
constexpr std::int64_t most_measuring_blocks = 1024;

// For a kernel of `element_threads` that visits stretches (`visit_stretches`, whose `whole` this is) and keeps the
// largest of its results in `largest`, by `keep_of_block`; null: nobody asks.
template <auto kernel, class... Arguments>
void launch_measuring(const double* largest, std::int64_t rows, std::int64_t columns, bool whole,
                      const Arguments&... arguments) {
    const std::int64_t blocks =
        blocks_for(stretch_count(rows, columns, whole), element_threads, largest ? most_measuring_blocks : most_blocks);
    if (blocks > 0) launch<kernel>(dim3(static_cast<unsigned>(blocks)), element_threads, arguments...);
}

}  // namespace cuda
}  // namespace resnetcore

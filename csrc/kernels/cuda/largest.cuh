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

// By a whole warp; of 32 bits, by an instruction.
template <class Bits>
__device__ __forceinline__ Bits largest_of_warp(Bits most) {
    if constexpr (sizeof(Bits) == 4) {
        return __reduce_max_sync(0xffffffffu, most);
    } else {
        for (int apart = 16; apart > 0; apart /= 2) {
            const Bits other = __shfl_xor_sync(0xffffffffu, most, apart);
            most = other > most ? other : most;
        }
        return most;
    }
}
__device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }
__device__ __forceinline__ void keep_magnitude(double x, double* into) {
    atomicMax(reinterpret_cast<unsigned long long*>(into), magnitude_bits(x));
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
        if (into) keep_of_warp(most_, into);
    }
    // The same by a whole block, at once: where all blocks come to the end together, they wait for the same memory.
    template <int threads>
    __device__ __forceinline__ void keep_of_block(double* into) const {
        constexpr int warp = 32, warps = threads / warp;
        static_assert(threads % warp == 0 && warps <= warp, "whole warps, and a lane for each");
        __shared__ Bits of_warps[warps];
        if (!into) return;
        const Bits of_warp = largest_of_warp(most_);
        if (leads_warp()) of_warps[threadIdx.x / warp] = of_warp;
        __syncthreads();
        if (threadIdx.x < warp) keep_of_warp(threadIdx.x < warps ? of_warps[threadIdx.x] : 0, into);
    }

private:
    using Bits = std::conditional_t<sizeof(Compute<T>) == 8, std::uint64_t, std::uint32_t>;

    static __device__ __forceinline__ void keep_of_warp(Bits most, double* into) {
        most = largest_of_warp(most);
        Compute<T> x;
        std::memcpy(&x, &most, sizeof x);
        T stored;
        write(x, stored);
        if (leads_warp()) keep_magnitude(static_cast<double>(read(stored)), into);
    }

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

// The largest magnitude that threads have seen, kept in memory that all blocks share.
//
// Invariant: magnitudes compare as integers do, so that their maximum does not depend on the order of the blocks, and a
// NaN is the largest of all: no comparison of floats would keep it.
#pragma once

#include <cuda_runtime.h>

#include <cstring>

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

}  // namespace cuda
}  // namespace resnetcore

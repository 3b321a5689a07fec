// The sum of a number of each of a block's threads.
//
// Invariant: pairs that lie the same way apart are added each time, so that the order is fixed.
#pragma once

#include <cuda_runtime.h>

namespace resnetcore {
namespace cuda {

// Of the first thread. Called by the whole block, whose threads have been at a barrier when it returns.
template <int threads>
__device__ __forceinline__ double sum_block(double value, double (&memory)[threads]) {
    static_assert((threads & (threads - 1)) == 0, "halves of halves");
    memory[threadIdx.x] = value;
    for (unsigned apart = threads / 2; apart > 0; apart /= 2) {
        __syncthreads();
        if (threadIdx.x < apart) memory[threadIdx.x] = memory[threadIdx.x] + memory[threadIdx.x + apart];
    }
    return memory[0];
}

}  // namespace cuda
}  // namespace resnetcore

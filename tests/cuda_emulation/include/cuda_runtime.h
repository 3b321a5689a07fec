// Stands in for CUDA's header of this name: what device code of the kernels uses of it. A thread of a block is a fiber
// (block.h); a block stays on one host thread, whose variables its shared memory therefore is.
#pragma once

#include <cstring>

#include "ampere/atoms.h"
#include "block.h"
#include "block_state.h"
#include "cuda_runtime_api.h"
#include "hopper/atoms.h"
#include "pairs.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static thread_local
#define __grid_constant__
#define __launch_bounds__(...)

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp() {
    emulation::wait_for_warp("__syncwarp", "", 0, [] {
        const int first = emulation::thread_index() / emulation::warp_size * emulation::warp_size;
        emulation::threads_met(first, first + emulation::warp_size);
    });
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
    static_assert(sizeof(T) <= emulation::exchanged, "a lane has room for this much");
    emulation::wait_for_warp("__shfl_xor_sync", &value, sizeof value, nullptr);
    std::memcpy(&value, emulation::taken_from_lane(emulation::lane() ^ lane_mask), sizeof value);
    return value;
}

inline unsigned __reduce_max_sync(unsigned, unsigned value) {
    emulation::wait_for_warp("__reduce_max_sync", &value, sizeof value, nullptr);
    for (int lane = 0; lane < emulation::warp_size; ++lane) {
        unsigned other;
        std::memcpy(&other, emulation::taken_from_lane(lane), sizeof other);
        value = other > value ? other : value;
    }
    return value;
}

template <class T>
T atomicMax(T* at, T value) {
    T before = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (before < value &&
           !__atomic_compare_exchange_n(at, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}
inline int atomicExch(int* at, int value) { return __atomic_exchange_n(at, value, __ATOMIC_RELAXED); }

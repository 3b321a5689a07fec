// Instructions that GPUs have since compute capability 8.0, a function each, as the PTX ISA has them. The emulation has
// the same functions, which end the process where a rule is broken (tests/cuda_emulation/ampere).
//
// Invariant: kernels use these instructions through this file alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/shared_memory.cuh"

#if !defined(RESNETCORE_CUDA_EMULATION)  // there, <cuda_runtime.h> has them

namespace resnetcore {
namespace cuda {
namespace ampere {

// 16 bytes from global memory, both on boundaries of 16; of which the first `bytes` are read, and the rest are zeros.
// It is on its way until its thread has waited for it, and others have met that thread.
__device__ __forceinline__ void copy_place(Shared to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}
// What the thread has copied since the last such call is a group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all of the thread's groups but the last few have arrived.
template <int but_the_last>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(but_the_last) : "memory");
}

// Four matrices of 8 × 8 numbers of 16 bits, by a warp: lane l gives the place of row l % 8 of matrix l / 8, 16 bytes
// on their boundary. In x[m], lane l has words of matrix m: row l / 4, word l % 4.
__device__ __forceinline__ void load_matrices(Shared row, std::uint32_t (&x)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(row)
                 : "memory");
}
// The same of the transposed matrices: a word has two numbers of a column, of neighbouring rows.
__device__ __forceinline__ void load_transposed(Shared row, std::uint32_t (&x)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(row)
                 : "memory");
}

}  // namespace ampere
}  // namespace cuda
}  // namespace resnetcore

#endif

// Dynamic shared memory, by addresses: what a block of the faster paths has, stages of operands and sums on their way
// out. The emulation has the same functions, and ends the process where a thread reads or writes what it has not waited
// for (tests/cuda_emulation/shared_memory.h).
//
// Invariant: kernels touch dynamic shared memory through this file, and the instructions' files (ampere/atoms.cuh,
// hopper/atoms.cuh), alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if !defined(RESNETCORE_CUDA_EMULATION)  // there, <cuda_runtime.h> has them

namespace resnetcore {
namespace cuda {

// An address in shared memory.
using Shared = std::uint32_t;

// On a boundary of 1024 bytes, as swizzled boxes must be.
extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
__device__ __forceinline__ Shared shared_memory() {
    auto begin = static_cast<Shared>(__cvta_generic_to_shared(dynamic_shared_memory));
    asm volatile("" : "+r"(begin));  // else it is asked of a special register again, wherever it is needed
    return begin;
}
__device__ __forceinline__ void store(Shared to, float x) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory");
}
__device__ __forceinline__ void store(Shared to, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}
__device__ __forceinline__ void store(Shared to, float x, float y, float z, float w) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}
__device__ __forceinline__ float load(Shared from) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
    return x;
}
__device__ __forceinline__ void load(Shared from, float& x, float& y) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x), "=f"(y) : "r"(from) : "memory");
}
__device__ __forceinline__ void load(Shared from, float& x, float& y, float& z, float& w) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void store_word(Shared to, std::uint32_t x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void store_byte(Shared to, std::uint32_t x) {
    asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ __forceinline__ std::uint32_t load_word(Shared from) {
    std::uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
    return x;
}
__device__ __forceinline__ void store_words(Shared to, const std::uint32_t (&x)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}
__device__ __forceinline__ void load_words(Shared from, std::uint32_t (&x)[4]) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from)
                 : "memory");
}

}  // namespace cuda
}  // namespace resnetcore

#endif

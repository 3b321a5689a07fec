// Pairs of bfloat16 as words, words on their way to memory, and floats, by an instruction each. The emulation has the
// same functions (tests/cuda_emulation).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if !defined(RESNETCORE_CUDA_EMULATION)  // there, <cuda_runtime.h> has them

namespace resnetcore {
namespace cuda {

// Two numbers in bfloat16, the first in the lower half; to nearest, ties to even.
__device__ __forceinline__ std::uint32_t pair_of(float x, float y) {
    std::uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}
// The larger one; of both zeros +0; NaN where one is.
__device__ __forceinline__ float larger_or_nan(float x, float y) {
    float most;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(x), "f"(y));
    return most;
}
// To global memory, in one access: of what a structure has, the compiler makes four where it sees fit.
__device__ __forceinline__ void write_words(void* to, const std::uint32_t (&x)[4]) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(x[0]), "r"(x[1]),
                 "r"(x[2]), "r"(x[3])
                 : "memory");
}

}  // namespace cuda
}  // namespace resnetcore

#endif

// The functions of csrc/kernels/cuda/pairs.cuh, by the emulation.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "math/bfloat16.h"

namespace resnetcore {
namespace cuda {

inline std::uint32_t pair_of(float x, float y) {
    return static_cast<std::uint32_t>(to_bfloat16(y).bits) << 16 | to_bfloat16(x).bits;
}
inline float larger_or_nan(float x, float y) {
    if (x != x || y != y) return x != x ? x : y;
    return x > y || (x == y && !std::signbit(x)) ? x : y;
}
inline void write_words(void* to, const std::uint32_t (&x)[4]) {
    if (reinterpret_cast<std::uintptr_t>(to) % sizeof x != 0) emulation::fail("a store to global address %p", to);
    std::memcpy(to, x, sizeof x);
}

}  // namespace cuda
}  // namespace resnetcore

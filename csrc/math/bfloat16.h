// bfloat16: the upper half of a float. A storage type only: whatever is computed with it is float.
#pragma once

#include <cstdint>
#include <cstring>

#include "math/functions.h"

namespace resnetcore {

struct bfloat16 {
    std::uint16_t bits;
};

RC_HD float to_float(bfloat16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// To nearest, ties to even; a NaN stays one.
RC_HD bfloat16 to_bfloat16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// What is computed with elements that are stored as T: sums, parameters, statistics, losses.
template <class T>
struct ComputeOf {
    using Type = T;
};
template <>
struct ComputeOf<bfloat16> {
    using Type = float;
};
template <class T>
using Compute = typename ComputeOf<T>::Type;

// Whether what is stored is what is computed with.
template <class T>
constexpr bool computes_itself = true;
template <>
inline constexpr bool computes_itself<bfloat16> = false;

}  // namespace resnetcore

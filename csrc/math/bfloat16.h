// bfloat16: the upper half of a float; and two of them for a float of 16 bits of precision. Storage types only:
// whatever is computed with them is float.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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
#if defined(__CUDA_ARCH__)
    std::uint16_t rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
    return {rounded};
#else
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
#endif
}

// A number as a sum of two: what `high` loses by rounding, `low` holds. Products of such numbers are sums of products
// of bfloat16 (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations").
struct bfloat16x2 {
    bfloat16 low, high;
};
static_assert(sizeof(bfloat16x2) == 4, "a word: two neighbours for an instruction that multiplies pairs");

RC_HD float to_float(bfloat16x2 x) { return to_float(x.high) + to_float(x.low); }

// What overflows is infinite, not infinity minus infinity.
RC_HD bfloat16x2 to_bfloat16x2(float x) {
    const bfloat16 high = to_bfloat16(x);
    const bool finite = (high.bits & 0x7f80) != 0x7f80;
    return {finite ? to_bfloat16(x - to_float(high)) : bfloat16{}, high};
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
template <>
struct ComputeOf<bfloat16x2> {
    using Type = float;
};
template <class T>
using Compute = typename ComputeOf<T>::Type;

// Whether what is stored is what is computed with.
template <class T>
constexpr bool computes_itself = std::is_same<T, Compute<T>>::value;

}  // namespace resnetcore

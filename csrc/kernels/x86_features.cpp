#include "kernels/x86_features.h"

#if defined(__x86_64__)

#include <cpuid.h>

namespace resnetcore {
namespace {

// Intel SDM, volume 2, CPUID; zeros where the CPU has no such leaf.
struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
    explicit Leaf(unsigned leaf, unsigned subleaf = 0) {
        if (!__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d)) a = b = c = d = 0;
    }
};
constexpr bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

bool saves(std::uint64_t components) { return (saved_components() & components) == components; }

}  // namespace

std::uint64_t saved_components() {
    constexpr unsigned osxsave = 1u << 27;
    if (!has(Leaf(1).c, osxsave)) return 0;
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
}

bool has_avx2() {
    constexpr std::uint64_t xmm_and_ymm = 0x6;
    constexpr unsigned fma_and_avx = 1u << 12 | 1u << 28, avx2 = 1u << 5;
    return saves(xmm_and_ymm) && has(Leaf(1).c, fma_and_avx) && has(Leaf(7).b, avx2);
}

bool has_avx512() {
    constexpr std::uint64_t masks_and_zmm = 0xe0;
    constexpr unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return has_avx2() && saves(masks_and_zmm) && has(Leaf(7).b, f_dq_bw_vl);
}

bool has_avx512_bf16() {
    constexpr unsigned avx512_bf16 = 1u << 5;
    return has_avx512() && Leaf(7).a >= 1 && has(Leaf(7, 1).a, avx512_bf16);  // which has a subleaf 1
}

}  // namespace resnetcore

#endif

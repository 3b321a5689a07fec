// Random numbers by counter (Philox4x32-10, Salmon et al. 2011): number i of a key is the same for any thread count,
// order and device. key = seed; counter = (i / 4 low, i / 4 high, purpose, step); word i mod 4 is the number.
#pragma once

#include <cstdint>

#include "math/functions.h"

namespace resnetcore {

struct PhiloxKey {
    std::uint64_t seed = 0;
    std::uint32_t purpose = 0;
    std::uint32_t step = 0;
};

// The four words of block `index` / 4.
RC_HD void philox_block(PhiloxKey key, std::uint64_t block, std::uint32_t (&out)[4]) {
    std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32);
    std::uint32_t c2 = key.purpose, c3 = key.step;
    std::uint32_t k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<std::uint32_t>(p1);
        c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<std::uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

RC_HD std::uint32_t philox_word(PhiloxKey key, std::uint64_t index) {
    std::uint32_t words[4];
    philox_block(key, index >> 2, words);
    // Not words[index & 3]: a GPU cannot index its registers.
    const std::uint32_t low = index & 1 ? words[1] : words[0], high = index & 1 ? words[3] : words[2];
    return index & 2 ? high : low;
}

// In [0, 1), a multiple of 2⁻³².
RC_HD double uniform(PhiloxKey key, std::uint64_t index) { return philox_word(key, index) * (1.0 / 4294967296.0); }

// Dropout's multipliers: 0 where u < p, else 1/(1 − p). The comparison is one of integers: words are uniform on [0,
// 2³²).
template <class C>
struct DropoutRule {
    C kept;
    double threshold;
    RC_HD explicit DropoutRule(double probability)
        : kept(static_cast<C>(1 / (1 - probability))), threshold(probability * 4294967296.0) {}
    RC_HD C multiplier(std::uint32_t word) const { return word < threshold ? C(0) : kept; }
};

// Standard normal by Box & Muller 1958, from the words 2i and 2i + 1.
RC_HD double normal(PhiloxKey key, std::uint64_t index) {
    const double u = (philox_word(key, 2 * index) + 0.5) * (1.0 / 4294967296.0);
    const double v = uniform(key, 2 * index + 1);
    return ::sqrt(-2 * ::log(u)) * ::cos(6.28318530717958647692 * v);
}

}  // namespace resnetcore

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

// The ten rounds on a counter's four words, of one block or of as many as a Word of `Arithmetic` has: product(w, m) is
// all 64 bits of w·m, whose halves are upper(product) and lower(product).
template <class Arithmetic, class Word>
RC_HD void philox_rounds(std::uint64_t seed, Word (&c)[4]) {
    auto k0 = Arithmetic::key(static_cast<std::uint32_t>(seed)),
         k1 = Arithmetic::key(static_cast<std::uint32_t>(seed >> 32));
    for (int round = 0; round < 10; ++round) {
        const auto p0 = Arithmetic::product(c[0], 0xD2511F53u), p1 = Arithmetic::product(c[2], 0xCD9E8D57u);
        c[0] = Arithmetic::upper(p1) ^ c[1] ^ k0;
        c[1] = Arithmetic::lower(p1);
        c[2] = Arithmetic::upper(p0) ^ c[3] ^ k1;
        c[3] = Arithmetic::lower(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

struct PhiloxArithmetic {
    static RC_HD std::uint32_t key(std::uint32_t k) { return k; }
    static RC_HD std::uint64_t product(std::uint32_t word, std::uint32_t m) { return std::uint64_t{word} * m; }
    static RC_HD std::uint32_t upper(std::uint64_t p) { return static_cast<std::uint32_t>(p >> 32); }
    static RC_HD std::uint32_t lower(std::uint64_t p) { return static_cast<std::uint32_t>(p); }
};
// The four words of block `index` / 4.
RC_HD void philox_block(PhiloxKey key, std::uint64_t block, std::uint32_t (&out)[4]) {
    out[0] = static_cast<std::uint32_t>(block), out[1] = static_cast<std::uint32_t>(block >> 32);
    out[2] = key.purpose, out[3] = key.step;
    philox_rounds<PhiloxArithmetic>(key.seed, out);
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
// 2³²), and those below `dropped`, p·2³² rounded up, are dropped.
template <class C>
struct DropoutRule {
    C kept;
    std::uint64_t dropped;
    RC_HD explicit DropoutRule(double probability) : kept(static_cast<C>(1 / (1 - probability))) {
        const double words = probability * 4294967296.0;
        dropped = static_cast<std::uint64_t>(words);
        dropped += static_cast<double>(dropped) < words;
    }
    RC_HD C multiplier(std::uint32_t word) const { return word < dropped ? C(0) : kept; }
};

// Standard normal by Box & Muller 1958, from the words 2i and 2i + 1.
RC_HD double normal(PhiloxKey key, std::uint64_t index) {
    const double u = (philox_word(key, 2 * index) + 0.5) * (1.0 / 4294967296.0);
    const double v = uniform(key, 2 * index + 1);
    return ::sqrt(-2 * ::log(u)) * ::cos(6.28318530717958647692 * v);
}

}  // namespace resnetcore

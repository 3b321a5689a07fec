// bfloat16 in vectors: widened to floats, rounded from them, and multiplied in pairs. Included inside the namespace of
// one instruction set.

typedef std::uint32_t Words __attribute__((vector_size(RC_VECTOR_BYTES)));
typedef std::uint32_t UnalignedWords __attribute__((vector_size(RC_VECTOR_BYTES), aligned(2), may_alias));
typedef std::uint16_t Halves __attribute__((vector_size(RC_VECTOR_BYTES / 2)));
typedef std::uint16_t UnalignedHalves __attribute__((vector_size(RC_VECTOR_BYTES / 2), aligned(2), may_alias));

constexpr int word_lanes = RC_VECTOR_BYTES / 4;

// bfloat16 number i as the low half of word i. AVX-512's conversions by their intrinsics: GCC 12 takes vectors of 64
// bytes apart for them, which makes six instructions of one.
#if defined(__AVX512F__)
typedef __m256i HalfVector;
RC_HD Words widened(__m256i halves) { return (Words)_mm512_cvtepu16_epi32(halves); }
RC_HD HalfVector narrowed(Words low) { return _mm512_cvtepi32_epi16((__m512i)low); }
RC_HD Words read_words(const bfloat16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
RC_HD void store(HalfVector halves, bfloat16* p) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves); }
#else
typedef Halves HalfVector;
RC_HD HalfVector narrowed(Words low) { return __builtin_convertvector(low, Halves); }
RC_HD Words read_words(const bfloat16* p) {
    return __builtin_convertvector((Halves) * reinterpret_cast<const UnalignedHalves*>(p), Words);
}
RC_HD void store(HalfVector halves, bfloat16* p) { *reinterpret_cast<UnalignedHalves*>(p) = halves; }
#endif
RC_HD Words read_words(const bfloat16* p, FirstLanes some) {
#if defined(__AVX512BW__)
    return widened(_mm256_maskz_loadu_epi16(static_cast<__mmask16>(some.mask), p));
#else
    Words words{};
    for (int i = 0; i < some.n; ++i) words[i] = p[i].bits;
    return words;
#endif
}
RC_HD Words read_words(const bfloat16* p, int n) {
    if (n >= word_lanes) return read_words(p);
    return n <= 0 ? Words{} : read_words(p, FirstLanes(n));
}
RC_HD void store(HalfVector halves, bfloat16* p, FirstLanes some) {
#if defined(__AVX512BW__)
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(some.mask), halves);
#else
    alignas(RC_VECTOR_BYTES / 2) bfloat16 all[word_lanes];
    store(halves, all);
    some.n < word_lanes ? copy_first<word_lanes / 2>(p, all, some.n) : store(halves, p);
#endif
}
RC_HD void store(HalfVector halves, bfloat16* p, int n) {
    if (n <= 0) return;
    n >= word_lanes ? store(halves, p) : store(halves, p, FirstLanes(n));
}
RC_HD Vec<float> to_float(Words low) { return Vec<float>((Vec<float>::Native)(low << 16)); }

RC_HD Vec<float> read(const bfloat16* p) { return to_float(read_words(p)); }
RC_HD Vec<float> read(const bfloat16* p, int n) { return to_float(read_words(p, n)); }
RC_HD Vec<float> read(const bfloat16* p, FirstLanes some) { return to_float(read_words(p, some)); }

// The upper half of each word is the bfloat16; as to_bfloat16 of math/bfloat16.h. The lower half is rubbish.
RC_HD Words rounded(Vec<float> x) {
    const Words bits = (Words)x.v, nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (x.v != x.v) ? (bits | 0x400000) : nearest;
}

#if defined(__AVX512BF16__)
RC_HD HalfVector rounded_halves(Vec<float> x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x.v); }
#else
RC_HD HalfVector rounded_halves(Vec<float> x) { return narrowed(rounded(x) >> 16); }
#endif
RC_HD void write(Vec<float> x, bfloat16* p) { store(rounded_halves(x), p); }
RC_HD void write(Vec<float> x, bfloat16* p, int n) { store(rounded_halves(x), p, n); }
RC_HD void write(Vec<float> x, bfloat16* p, FirstLanes some) { store(rounded_halves(x), p, some); }

RC_HD Vec<float> low_of(Words pairs) { return Vec<float>((Vec<float>::Native)(pairs << 16)); }
RC_HD Vec<float> high_of(Words pairs) { return Vec<float>((Vec<float>::Native)(pairs & 0xffff0000u)); }

// A vector of pairs from anywhere: pair i is number 2i and the one behind it.
RC_HD Words read_pairs(const bfloat16* p) { return *reinterpret_cast<const UnalignedWords*>(p); }
#if defined(__AVX512BF16__)
// Of n numbers, at most a vector of pairs: zeros beyond them.
RC_HD Words read_pairs(const bfloat16* p, int n) { return (Words)_mm512_maskz_loadu_epi16(FirstLanes(n).mask, p); }
#endif
RC_HD void write_pairs(Words pairs, bfloat16* p) { *reinterpret_cast<UnalignedWords*>(p) = pairs; }

#if defined(__AVX512BF16__) || defined(RC_TILE_UNIT)
// Half i of the result is half `numbers[i]` of both together.
RC_HD Words chosen_halves(Words first, Words second, Words numbers) {
#if defined(__AVX512BW__)
    return (Words)_mm512_permutex2var_epi16((__m512i)first, (__m512i)numbers, (__m512i)second);
#else
    std::uint16_t from[4 * word_lanes], to[2 * word_lanes], which[2 * word_lanes];
    std::memcpy(from, &first, sizeof first);
    std::memcpy(from + 2 * word_lanes, &second, sizeof second);
    std::memcpy(which, &numbers, sizeof numbers);
    for (int i = 0; i < 2 * word_lanes; ++i) to[i] = from[which[i]];
    std::memcpy(&numbers, to, sizeof to);
    return numbers;
#endif
}
constexpr Words counted_words = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Of two rows of numbers, two to a word: pairs (number i of the first, number i of the second), of the first half of
// the rows and of the second.
RC_HD void interleave(Words first, Words second, Words& low, Words& high) {
    const Words turns = counted_words * 0x10001u + 0x200000u;
    low = chosen_halves(first, second, turns);
    high = chosen_halves(first, second, turns + 0x100010u);
}
// The converse: all lower halves (0), or all upper ones (1).
RC_HD Words every_second(Words first, Words second, std::uint32_t which) {
    return chosen_halves(first, second, counted_words * 0x40004u + (0x20000u + which * 0x10001u));
}
RC_HD void separate(Words first, Words second, Words& low, Words& high) {
    low = every_second(first, second, 0);
    high = every_second(first, second, 1);
}
#endif
#if defined(__AVX512BF16__)
// Two vectors rounded, one after the other.
RC_HD Words rounded_both(Vec<float> first, Vec<float> second) {
    return (Words)_mm512_cvtne2ps_pbh((__m512)second.v, (__m512)first.v);
}
#endif

// Two vectors as pairs: word i is `low` number i below `high` number i.
RC_HD Words pairs_of(Vec<float> low, Vec<float> high) {
#if defined(__AVX512BF16__)
    const __m512i in_turns = (__m512i)(counted_words * 0x10001u + 0x100000u);
    return (Words)_mm512_permutexvar_epi16(in_turns, (__m512i)rounded_both(low, high));
#else
    return rounded(low) >> 16 | (rounded(high) & 0xffff0000u);
#endif
}

#if defined(__AVX512BF16__)
template <class T>
RC_HD Words broadcast_pair(const T* p) {
    std::uint32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return pair - Words{};
}
// c + high(a)·high(b) + low(a)·low(b). The instruction flushes denormals, and fuses nothing.
RC_HD Vec<float> dot_add(Words a, Words b, Vec<float> c) {
    return (Vec<float>::Native)_mm512_dpbf16_ps((__m512)c.v, (__m512bh)a, (__m512bh)b);
}
#endif

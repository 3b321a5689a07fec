// bfloat16 and bfloat16x2 in vectors: widened to floats, rounded from them, and multiplied in pairs. Included inside
// the namespace of one instruction set.

typedef std::uint32_t Words __attribute__((vector_size(RC_VECTOR_BYTES)));
typedef std::uint32_t UnalignedWords __attribute__((vector_size(RC_VECTOR_BYTES), aligned(2), may_alias));
typedef std::uint16_t Halves __attribute__((vector_size(RC_VECTOR_BYTES / 2)));
typedef std::uint16_t UnalignedHalves __attribute__((vector_size(RC_VECTOR_BYTES / 2), aligned(2), may_alias));

constexpr int word_lanes = RC_VECTOR_BYTES / 4;

// bfloat16 number i as the low half of word i. AVX-512's conversions by their intrinsics: GCC 12 takes vectors of 64
// bytes apart for them, which makes six instructions of one.
#if defined(__AVX512F__)
RC_HD Words widened(__m256i halves) { return (Words)_mm512_cvtepu16_epi32(halves); }
RC_HD __m256i narrowed(Words low) { return _mm512_cvtepi32_epi16((__m512i)low); }
RC_HD Words read_words(const bfloat16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
#else
RC_HD Words read_words(const bfloat16* p) {
    return __builtin_convertvector((Halves) * reinterpret_cast<const UnalignedHalves*>(p), Words);
}
#endif
RC_HD Words read_words(const bfloat16* p, int n) {
    if (n >= word_lanes) return read_words(p);
#if defined(__AVX512BW__)
    if (n <= 0) return Words{};
    return widened(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p));
#else
    Words words{};
    for (int i = 0; i < n; ++i) words[i] = p[i].bits;
    return words;
#endif
}
// The converse: the low half of each word.
RC_HD void write_words(Words words, bfloat16* p) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(words));
#else
    *reinterpret_cast<UnalignedHalves*>(p) = __builtin_convertvector(words, Halves);
#endif
}
RC_HD void write_words(Words words, bfloat16* p, int n) {
    if (n <= 0) return;
    if (n >= word_lanes) return write_words(words, p);
#if defined(__AVX512BW__)
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), narrowed(words));
#else
    alignas(RC_VECTOR_BYTES / 2) bfloat16 all[word_lanes];
    write_words(words, all);
    copy_first<word_lanes / 2>(p, all, n);
#endif
}
RC_HD Vec<float> to_float(Words low) { return Vec<float>((Vec<float>::Native)(low << 16)); }

RC_HD Vec<float> read(const bfloat16* p) { return to_float(read_words(p)); }
RC_HD Vec<float> read(const bfloat16* p, int n) { return to_float(read_words(p, n)); }

// The upper half of each word is the bfloat16; as to_bfloat16 of math/bfloat16.h. The lower half is rubbish.
RC_HD Words rounded(Vec<float> x) {
    const Words bits = (Words)x.v, nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (x.v != x.v) ? (bits | 0x400000) : nearest;
}

#if defined(__AVX512BF16__)
RC_HD __m256i halves_to_write(Vec<float> x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x.v); }
#elif defined(__AVX512F__)
RC_HD __m256i halves_to_write(Vec<float> x) { return narrowed(rounded(x) >> 16); }
#endif
RC_HD void write(Vec<float> x, bfloat16* p) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves_to_write(x));
#else
    *reinterpret_cast<UnalignedHalves*>(p) = __builtin_convertvector(rounded(x) >> 16, Halves);
#endif
}
RC_HD void write(Vec<float> x, bfloat16* p, int n) {
    if (n <= 0) return;
    if (n >= word_lanes) return write(x, p);
#if defined(__AVX512BW__)
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), halves_to_write(x));
#else
    alignas(RC_VECTOR_BYTES / 2) bfloat16 all[word_lanes];
    write(x, all);
    copy_first<word_lanes / 2>(p, all, n);
#endif
}

RC_HD Vec<float> low_of(Words pairs) { return Vec<float>((Vec<float>::Native)(pairs << 16)); }
RC_HD Vec<float> high_of(Words pairs) { return Vec<float>((Vec<float>::Native)(pairs & 0xffff0000u)); }

// As to_float and to_bfloat16x2 of math/bfloat16.h.
RC_HD Vec<float> sum_of_halves(Words words) { return high_of(words) + low_of(words); }
RC_HD Words halves_of(Vec<float> x) {
    const Words high = rounded(x) & 0xffff0000u;
    const Words low = rounded(x - Vec<float>((Vec<float>::Native)high)) >> 16;
    return ((high & 0x7f800000u) == 0x7f800000u) ? high : (high | low);
}

#if defined(RC_TILE_UNIT)
// Planes of halves of the numbers, one behind the other, as tiles take them.
template <class T>
constexpr int planes = std::is_same<T, bfloat16x2>::value ? 2 : 1;

// A row of bfloat16x2 is cut in blocks of 32 numbers, of which all high halves come first and then all low ones. A
// block begins at a multiple of its size. A number's address is what it were if it lay there in one piece, and tells so
// where its halves are; those of the numbers behind it follow, to the end of the block.
constexpr std::int64_t plane = 32;
static_assert(2 * plane * sizeof(bfloat16) == row_alignment<bfloat16x2>, "blocks begin where rows do");
template <class T>
RC_HD auto high_halves(T* number) {
    using Half = std::conditional_t<std::is_const<T>::value, const bfloat16, bfloat16>;
    const auto at = reinterpret_cast<std::uintptr_t>(number), within = at % row_alignment<bfloat16x2>;
    return reinterpret_cast<Half*>(at - within + within / 2);
}
RC_HD Vec<float> read(const bfloat16x2* p) {
    const bfloat16* high = high_halves(p);
    return read(high) + read(high + plane);
}
RC_HD Vec<float> read(const bfloat16x2* p, int n) {
    const bfloat16* high = high_halves(p);
    return read(high, n) + read(high + plane, n);
}
RC_HD void write(Vec<float> x, bfloat16x2* p) {
    const Words words = halves_of(x);
    bfloat16* const high = high_halves(p);
    write_words(words >> 16, high);
    write_words(words & 0xffffu, high + plane);
}
RC_HD void write(Vec<float> x, bfloat16x2* p, int n) {
    if (n <= 0) return;
    const Words words = halves_of(x);
    bfloat16* const high = high_halves(p);
    write_words(words >> 16, high, n);
    write_words(words & 0xffffu, high + plane, n);
}
#else
// A bfloat16x2 is a word.
RC_HD Words read_words(const bfloat16x2* p) { return *reinterpret_cast<const UnalignedWords*>(p); }
RC_HD Words read_words(const bfloat16x2* p, int n) {
    if (n >= word_lanes) return read_words(p);
    if (n <= 0) return Words{};
#if defined(__AVX512F__)
    return (Words)_mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << n) - 1), p);
#else
    Words words{};
    std::memcpy(&words, p, static_cast<std::size_t>(n) * sizeof *p);
    return words;
#endif
}
RC_HD void write_words(Words words, bfloat16x2* p) { *reinterpret_cast<UnalignedWords*>(p) = words; }
RC_HD void write_words(Words words, bfloat16x2* p, int n) {
    if (n <= 0) return;
    if (n >= word_lanes) return write_words(words, p);
#if defined(__AVX512F__)
    _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1u << n) - 1), (__m512i)words);
#else
    alignas(RC_VECTOR_BYTES) bfloat16x2 all[word_lanes];
    write_words(words, all);
    copy_first<word_lanes / 2>(p, all, n);
#endif
}
RC_HD Words high_twice(Words words) { return (words & 0xffff0000u) | words >> 16; }
RC_HD Words low_twice(Words words) { return words << 16 | (words & 0xffffu); }

RC_HD Vec<float> read(const bfloat16x2* p) { return sum_of_halves(read_words(p)); }
RC_HD Vec<float> read(const bfloat16x2* p, int n) { return sum_of_halves(read_words(p, n)); }
RC_HD void write(Vec<float> x, bfloat16x2* p) { write_words(halves_of(x), p); }
RC_HD void write(Vec<float> x, bfloat16x2* p, int n) { write_words(halves_of(x), p, n); }
#endif

// A vector of pairs from anywhere: pair i is number 2i and the one behind it.
RC_HD Words read_pairs(const bfloat16* p) { return *reinterpret_cast<const UnalignedWords*>(p); }
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
// The converse: all lower halves, and all upper ones.
RC_HD void separate(Words first, Words second, Words& low, Words& high) {
    const Words even = counted_words * 0x40004u + 0x20000u;
    low = chosen_halves(first, second, even);
    high = chosen_halves(first, second, even + 0x10001u);
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
RC_HD Words broadcast_pair(const bfloat16* p) {
    std::uint32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return pair - Words{};
}
// c + high(a)·high(b) + low(a)·low(b). The instruction flushes denormals, and fuses nothing.
RC_HD Vec<float> dot_add(Words a, Words b, Vec<float> c) {
    return (Vec<float>::Native)_mm512_dpbf16_ps((__m512)c.v, (__m512bh)a, (__m512bh)b);
}
#endif
// c + both numbers of each pair.
RC_HD Vec<float> add_pair(Words pairs, Vec<float> c) {
#if defined(__AVX512BF16__)
    return dot_add(pairs, Words{} + 0x3f803f80u, c);
#else
    return c + high_of(pairs) + low_of(pairs);
#endif
}

// Two vectors of numbers that follow one another.
template <class C>
struct Both {
    Vec<C> low, high;
};
template <class T>
RC_HD Both<Compute<T>> read_both(const T* p) {
    return {read(p), read(p + lanes_of<T>)};
}
template <class T>
RC_HD void write_both(Both<Compute<T>> x, T* p) {
    write(x.low, p);
    write(x.high, p + lanes_of<T>);
}
#if defined(__AVX512BF16__)
// A line of numbers at once takes half as many instructions as its halves do.
RC_HD Both<float> to_float_both(Words numbers) {
    const __m512i first = (__m512i)(counted_words << 16), second = (__m512i)((counted_words + word_lanes) << 16);
    const auto from = [&](__m512i which) {
        return Vec<float>((Vec<float>::Native)_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, which, (__m512i)numbers));
    };
    return {from(first), from(second)};
}
RC_HD Both<float> read_both(const bfloat16* p) { return to_float_both(read_pairs(p)); }
RC_HD void write_both(Both<float> x, bfloat16* p) { write_pairs(rounded_both(x.low, x.high), p); }

// Of 32 numbers those that are not ≤ 0, which a NaN is not, compared as they are stored.
RC_HD __mmask32 not_below_or_zero(const bfloat16* p) {
    const __m512i numbers = (__m512i)read_pairs(p);
    // Negative NaNs come first then, behind them all that is positive, a zero between them, and the other negatives.
    const __m512i turned = _mm512_add_epi16(numbers, _mm512_set1_epi16(0x7f));
    const __mmask32 some = _mm512_cmple_epu16_mask(turned, _mm512_set1_epi16(static_cast<short>(0x807e)));
    return _mm512_mask_test_epi16_mask(some, numbers, numbers);
}
RC_HD void write_chosen(__mmask32 chosen, Words packed, bfloat16* p) {
    write_pairs((Words)_mm512_maskz_mov_epi16(chosen, (__m512i)packed), p);
}
// As write_both, but zeros where what was saved is ≤ 0: ReLU's choice, without widening that.
RC_HD void write_chosen(Both<float> x, const bfloat16* saved, bfloat16* p) {
    write_chosen(not_below_or_zero(saved), rounded_both(x.low, x.high), p);
}
#if defined(RC_TILE_UNIT)
// As halves_of, but that halves too small for a normal number are zeros.
struct PackedHalves {
    Words high, low;
};
RC_HD PackedHalves halves_of_both(Both<float> x) {
    const Words high = rounded_both(x.low, x.high);
    const Both<float> rounded = to_float_both(high);
    const __m512i exponents = _mm512_set1_epi16(0x7f80);
    const __mmask32 finite = _mm512_cmpneq_epi16_mask(_mm512_and_si512((__m512i)high, exponents), exponents);
    const Words low = rounded_both(x.low - rounded.low, x.high - rounded.high);
    return {high, (Words)_mm512_maskz_mov_epi16(finite, (__m512i)low)};
}
RC_HD Both<float> read_both(const bfloat16x2* p) {
    const bfloat16* const halves = high_halves(p);
    const Both<float> high = read_both(halves), low = read_both(halves + plane);
    return {high.low + low.low, high.high + low.high};
}
RC_HD void write_both(Both<float> x, bfloat16x2* p) {
    bfloat16* const halves = high_halves(p);
    const PackedHalves packed = halves_of_both(x);
    write_pairs(packed.high, halves);
    write_pairs(packed.low, halves + plane);
}
// By the high half, which is zero where a number is, and has its sign.
RC_HD void write_chosen(Both<float> x, const bfloat16x2* saved, bfloat16x2* p) {
    bfloat16* const halves = high_halves(p);
    const __mmask32 chosen = not_below_or_zero(high_halves(saved));
    const PackedHalves packed = halves_of_both(x);
    write_chosen(chosen, packed.high, halves);
    write_chosen(chosen, packed.low, halves + plane);
}
template <class T>
constexpr bool chooses_as_stored = !computes_itself<T>;
#else
template <class T>
constexpr bool chooses_as_stored = std::is_same<T, bfloat16>::value;
#endif
#else
template <class T>
constexpr bool chooses_as_stored = false;
#endif

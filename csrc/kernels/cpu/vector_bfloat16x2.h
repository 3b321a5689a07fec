// bfloat16x2 in vectors: made of floats, and floats made of them, from words or, where a matrix unit takes their
// halves, from planes. Included inside the namespace of one instruction set.

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
template <class Count>
RC_HD Vec<float> read_first(const bfloat16x2* p, Count n) {
    const bfloat16* high = high_halves(p);
    return read(high, n) + read(high + plane, n);
}
RC_HD Vec<float> read(const bfloat16x2* p, int n) { return read_first(p, n); }
RC_HD Vec<float> read(const bfloat16x2* p, FirstLanes some) { return read_first(p, some); }
RC_HD void write(Vec<float> x, bfloat16x2* p) {
    const Words words = halves_of(x);
    bfloat16* const high = high_halves(p);
    store(narrowed(words >> 16), high);
    store(narrowed(words), high + plane);
}
template <class Count>
RC_HD void write_first(Vec<float> x, bfloat16x2* p, Count n) {
    const Words words = halves_of(x);
    bfloat16* const high = high_halves(p);
    store(narrowed(words >> 16), high, n);
    store(narrowed(words), high + plane, n);
}
RC_HD void write(Vec<float> x, bfloat16x2* p, int n) { write_first(x, p, n); }
RC_HD void write(Vec<float> x, bfloat16x2* p, FirstLanes some) { write_first(x, p, some); }
#else
// A bfloat16x2 is a word.
RC_HD Words read_words(const bfloat16x2* p) { return *reinterpret_cast<const UnalignedWords*>(p); }
RC_HD Words read_words(const bfloat16x2* p, FirstLanes some) {
#if defined(__AVX512BW__)
    return (Words)_mm512_maskz_loadu_epi32(static_cast<__mmask16>(some.mask), p);
#else
    Words words{};
    std::memcpy(&words, p, static_cast<std::size_t>(some.n) * sizeof *p);
    return words;
#endif
}
RC_HD Words read_words(const bfloat16x2* p, int n) {
    if (n >= word_lanes) return read_words(p);
    return n <= 0 ? Words{} : read_words(p, FirstLanes(n));
}
RC_HD void write_words(Words words, bfloat16x2* p) { *reinterpret_cast<UnalignedWords*>(p) = words; }
RC_HD void write_words(Words words, bfloat16x2* p, FirstLanes some) {
#if defined(__AVX512BW__)
    _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(some.mask), (__m512i)words);
#else
    alignas(RC_VECTOR_BYTES) bfloat16x2 all[word_lanes];
    write_words(words, all);
    some.n < word_lanes ? copy_first<word_lanes / 2>(p, all, some.n) : write_words(words, p);
#endif
}
RC_HD void write_words(Words words, bfloat16x2* p, int n) {
    if (n <= 0) return;
    n >= word_lanes ? write_words(words, p) : write_words(words, p, FirstLanes(n));
}
RC_HD Words high_twice(Words words) { return (words & 0xffff0000u) | words >> 16; }
RC_HD Words low_twice(Words words) { return words << 16 | (words & 0xffffu); }

RC_HD Vec<float> read(const bfloat16x2* p) { return sum_of_halves(read_words(p)); }
RC_HD Vec<float> read(const bfloat16x2* p, int n) { return sum_of_halves(read_words(p, n)); }
RC_HD Vec<float> read(const bfloat16x2* p, FirstLanes some) { return sum_of_halves(read_words(p, some)); }
RC_HD void write(Vec<float> x, bfloat16x2* p) { write_words(halves_of(x), p); }
RC_HD void write(Vec<float> x, bfloat16x2* p, int n) { write_words(halves_of(x), p, n); }
RC_HD void write(Vec<float> x, bfloat16x2* p, FirstLanes some) { write_words(halves_of(x), p, some); }
#endif

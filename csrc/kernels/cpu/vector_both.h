// A panel's columns of a row, which are two vectors, at once. Included inside the namespace of one instruction set,
// after whatever else reads and writes vectors.

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
#endif
#endif

// Whether what is stored as T is handled as it lies, a line at a time.
#if !defined(__AVX512BF16__)
template <class T>
constexpr bool packs_lines = false;
#elif defined(RC_TILE_UNIT)
template <class T>
constexpr bool packs_lines = !computes_itself<T>;
#else
template <class T>
constexpr bool packs_lines = std::is_same<T, bfloat16>::value;
#endif

// Dropout masks. Included inside an ISA's namespace.
//
// Invariant: a number depends on its own counter alone (math/random.h), whichever others are made with it.

// Words in the lower halves of lanes of 64 bits, a block in each; what upper halves have is rubbish.
struct BlocksAtOnce {
    typedef std::uint64_t Words __attribute__((vector_size(RC_VECTOR_BYTES)));
    static constexpr int blocks = RC_VECTOR_BYTES / 8;

    static RC_HD Words key(std::uint32_t k) { return k - Words{}; }
    static RC_HD Words product(Words words, std::uint32_t m) {
#if defined(__AVX512F__)
        return (Words)_mm512_mul_epu32((__m512i)words, (__m512i)(Words{} + m));
#elif defined(__AVX2__)
        return (Words)_mm256_mul_epu32((__m256i)words, (__m256i)(Words{} + m));
#elif defined(__SSE2__) && RC_VECTOR_BYTES == 16
        return (Words)_mm_mul_epu32((__m128i)words, (__m128i)(Words{} + m));
#else
        return (words & 0xffffffffu) * m;
#endif
    }
    static RC_HD Words upper(Words p) { return p >> 32; }
    static RC_HD Words lower(Words p) { return p; }

    // Those of blocks [first, first + blocks), as numbers follow one another.
    static RC_HD void make(PhiloxKey key, std::uint64_t first, RC_ISA::Words& low, RC_ISA::Words& high) {
        constexpr auto all = std::make_integer_sequence<int, blocks>();
        Words c[4];
        // Even lanes have the first half of the blocks, so that pairs of lanes part into one half and the other.
        for (int lane = 0; lane < blocks; ++lane) c[0][lane] = lane / 2 + lane % 2 * (blocks / 2);
        c[0] += first;
        c[1] = c[0] >> 32;
        c[2] = Words{} + key.purpose;
        c[3] = Words{} + key.step;
        philox_rounds<BlocksAtOnce>(key.seed, c);
        const Words first_two = (c[0] & 0xffffffffu) | c[1] << 32, last_two = (c[2] & 0xffffffffu) | c[3] << 32;
        low = (RC_ISA::Words)exchange<1, false>(first_two, last_two, all);
        high = (RC_ISA::Words)exchange<1, true>(first_two, last_two, all);
    }
};

// What multiplies numbers [first, first + 2 · word_lanes) of a key, `first` a multiple of four.
template <class C>
RC_HD void draw_multipliers(PhiloxKey key, const DropoutRule<C>& rule, std::uint64_t first, C* out) {
    Words halves[2];
    BlocksAtOnce::make(key, first / 4, halves[0], halves[1]);
    if constexpr (sizeof(C) == sizeof(std::uint32_t)) {
        const Words last_dropped = static_cast<std::uint32_t>(rule.dropped - 1) - Words{};
        each_row<2>([&](int half) {
            select(halves[half] > last_dropped, Vec<C>(rule.kept), Vec<C>()).store(out + half * word_lanes);
        });
    } else {
        std::uint32_t words[2 * word_lanes];
        std::memcpy(words, halves, sizeof words);
        for (int i = 0; i < 2 * word_lanes; ++i) out[i] = rule.multiplier(words[i]);
    }
}

// Multipliers of numbers [first, first + count).
template <class C>
RC_HD void draw_multipliers(PhiloxKey key, const DropoutRule<C>& rule, std::uint64_t first, std::int64_t count,
                            C* out) {
    constexpr int at_once = 2 * word_lanes;
    for (std::int64_t done = 0; done < count;) {
        const std::uint64_t next = first + static_cast<std::uint64_t>(done);
        const auto skipped = static_cast<int>(next % 4);  // of a block, before the first one
        if (skipped == 0 && done + at_once <= count) {
            draw_multipliers(key, rule, next, out + done);
            done += at_once;
            continue;
        }
        C some[at_once];
        draw_multipliers(key, rule, next - static_cast<std::uint64_t>(skipped), some);
        for (int i = skipped; i < at_once && done < count; ++i) out[done++] = some[i];
    }
}

template <class T>
void dropout(const DropoutArgs<T>& args) {
    const DropoutRule<Compute<T>> rule(args.probability);
    PhiloxKey key = *args.key;
    key.purpose = args.purpose;
    // Rows follow one another, as their numbers do.
    const bool dense = args.out.stride == args.columns && args.columns == args.row_columns;
    const std::int64_t runs = dense ? 1 : args.rows, length = dense ? args.rows * args.columns : args.columns;
    for (std::int64_t i = 0; i < runs; ++i)
        draw_multipliers(key, rule,
                         static_cast<std::uint64_t>((args.first_row + i) * args.row_columns + args.first_column),
                         length, args.out.data + i * args.out.stride);
}

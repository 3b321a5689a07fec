// One stretch of the rows of A and of δ, or some of them together, and its share of dW. Included inside an ISA's
// namespace.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

#if defined(RC_TILE_UNIT)
// A matrix unit is faster than the second-level cache, where sums would wait between stretches: so many rows are summed
// at once as that cache has room for, beside what else is in it.
template <class T>
constexpr std::int64_t most_laid_out = (5 << 18) / sizeof(T);
constexpr bool finishes_blocks = true;  // 32 rows of a panel at a time, so that the operands' blocks are whole
#else
template <class T>
constexpr std::int64_t most_laid_out = 0;
constexpr bool finishes_blocks = false;
#endif

// Asks for memory that will be written.
template <class C>
RC_HD void prefetch_lines(const C* from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / static_cast<std::int64_t>(sizeof(C))) __builtin_prefetch(from + i, 1);
}

// Memory that will be written when a tile's sums are there, or read for those after them, and is asked for little by
// little while they are made.
// No lambdas: one that only prefetches is pure to the compiler, and so is dropped.
class Soon {
public:
    template <class C>
    RC_HD void add(const C* from, std::int64_t size) {
        ranges_[count_++] = {reinterpret_cast<const char*>(from),
                             (size * static_cast<std::int64_t>(sizeof(C)) + 63) / 64};
    }
    RC_HD bool is_empty() const { return count_ == 0; }
    // Asks for part `part` of `parts`: of each range some, so that the loops are as long every time.
    RC_HD void ask(std::int64_t part, std::int64_t parts) const {
        for (int r = 0; r < count_; ++r) {
            const std::int64_t first = ranges_[r].lines * part / parts, last = ranges_[r].lines * (part + 1) / parts;
            for (std::int64_t line = first; line < last; ++line) __builtin_prefetch(ranges_[r].from + 64 * line, 1);
        }
    }

private:
    struct Range {
        const char* from;
        std::int64_t lines;
    };
    static constexpr int most = 6;  // a parameter, its states, two operands, and sums
    Range ranges_[most];
    int count_ = 0;
};

// Rows [begin, end) of the batch, and the panel of δ that begins at `column`.
template <class T>
struct StretchRows {
    // So many rows are taken together, as the room that they are laid out in has been made for.
    static RC_HD std::int64_t rows_together(std::int64_t inner) { return laid_out_rows(inner, most_laid_out<T>); }

    const WeightsArgs<T>& args;
    std::int64_t begin = 0, end = 0, column = 0;
    int lanes[2] = {0, 0};
};

// Pairs along the rows of a stretch that ends before row `end`: two rows interleaved, where zeros stand for rows and
// columns that are none. Two vectors of pairs, of numbers from `first` on of two rows that are there;
RC_HD void interleave_line(Rows<bfloat16> from, std::int64_t row, std::int64_t first, bfloat16* to) {
    const bfloat16* const low = from.data + row * from.stride + first;
#if defined(__AVX512BF16__)
    Words halves[2];
    interleave(read_pairs(low), read_pairs(low + from.stride), halves[0], halves[1]);
    each_row<2>([&](int half) { write_pairs(halves[half], to + half * 2 * word_lanes); });
#else
    each_row<2>([&](int half) {
        const bfloat16* const numbers = low + half * word_lanes;
        write_pairs(read_words(numbers) | read_words(numbers + from.stride) << 16, to + half * 2 * word_lanes);
    });
#endif
}
// one of numbers [first, first + columns), or as many as a vector holds;
RC_HD Words pairs(Rows<bfloat16> from, std::int64_t row, std::int64_t end, std::int64_t first, std::int64_t columns) {
    const int n = columns < word_lanes ? static_cast<int>(columns) : word_lanes;
    const bfloat16* low = from.data + row * from.stride + first;
    const Words words = row < end ? read_words(low, n) : Words{};
    return row + 1 < end ? words | read_words(low + from.stride, n) << 16 : words;
}
// and of a panel's columns, of which `lanes` exist in each vector, those of rows [row, stop).
RC_HD void interleave_panel(Rows<bfloat16> from, std::int64_t row, std::int64_t end, std::int64_t stop,
                            const int (&lanes)[2], bfloat16* to) {
    if (lanes[1] == word_lanes)
        for (; row + 2 <= end && row < stop; row += 2, to += 4 * word_lanes) interleave_line(from, row, 0, to);
    for (; row < stop; row += 2, to += 4 * word_lanes)
        for (int half = 0; half < 2; ++half)
            write_pairs(pairs(from, row, end, half * word_lanes, lanes[half]), to + half * 2 * word_lanes);
}

// What products of pairs take a stretch's rows as: those of A, or what is laid out of them, and then a panel of δ.
template <class T>
struct PairedStretch : StretchRows<T> {
    static std::int64_t room(std::int64_t, std::int64_t inner) {
        return StretchRows<T>::rows_together(inner) * (pair_stride(inner) + operand_parts<T> * 2 * word_lanes);
    }
    RC_HD T* panel_pairs() const {
        return this->args.room + this->rows_together(this->args.inner) * pair_stride(this->args.inner);
    }
    RC_HD Rows<T> panel_of_delta() const {
        const Rows<T> delta = this->args.delta;
        return {delta.data + this->column, delta.stride};
    }
};

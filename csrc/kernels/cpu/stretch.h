// One stretch of the rows of A and of δ, and its share of dW. Included inside an ISA's namespace.
//
// Invariant: a stretch is summed on its own and then added, so that its share is the same whatever came before it.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

// Rows [begin, end) of the batch, and the panel of δ that begins at `column`.
template <class T>
struct StretchRows {
    const WeightsArgs<T>& args;
    std::int64_t begin = 0, end = 0, column = 0;
    int lanes[2] = {0, 0};
};

// As the products take it: `take_rows` is called once for a stretch, `take_panel` once for each of its panels.
template <class T>
struct Stretch : StretchRows<T> {
    using StretchRows<T>::args, StretchRows<T>::begin, StretchRows<T>::end, StretchRows<T>::column,
        StretchRows<T>::lanes;

    void take_rows() {}
    void take_panel() {}
    // acc += Σ_rows a(row, k + i)·δ(row, columns).
    template <int MR>
    RC_HD void add_to(Accumulators<T, MR>& acc, std::int64_t k) const {
        const T* a = args.a.data + begin * args.a.stride + k;
        const T* d = args.delta.data + begin * args.delta.stride + column;
        if (lanes[1] == Vec<T>::lanes)
            return accumulate<MR>(a, 1, args.a.stride, d, args.delta.stride, end - begin, acc);
        // A partial panel: columns beyond the last belong to someone else.
        for (std::int64_t row = begin; row < end; ++row, a += args.a.stride, d += args.delta.stride) {
            const Vec<T> left = read(d, lanes[0]), right = read(d + Vec<T>::lanes, lanes[1]);
            each_row<MR>([&](int i) {
                const Vec<T> x(a[i]);
                acc.at[i][0] = multiply_add(x, left, acc.at[i][0]);
                acc.at[i][1] = multiply_add(x, right, acc.at[i][1]);
            });
        }
    }
};

// In bfloat16, pairs along the rows: two rows are interleaved, and zeros stand for rows and columns that are none.
struct PairedStretch : StretchRows<bfloat16> {
    // Numbers [first, first + columns) of rows `row` and `row + 1`, or as many as a vector holds.
    RC_HD Words pairs(Rows<bfloat16> from, std::int64_t row, std::int64_t first, std::int64_t columns) const {
        const int n = columns < word_lanes ? static_cast<int>(columns) : word_lanes;
        const bfloat16* low = from.data + row * from.stride + first;
        const Words above = row + 1 < end ? read_words(low + from.stride, n) : Words{};
        return (row < end ? read_words(low, n) : Words{}) | above << 16;
    }
    // Rows up to `stop` and `width` columns of pairs, in whole vectors. Strides of `to` and widths count pairs.
    RC_HD void interleave(Rows<bfloat16> from, std::int64_t first, std::int64_t columns, std::int64_t stop,
                          std::int64_t width, bfloat16* to, std::int64_t stride) const {
        for (std::int64_t row = begin; row < stop; row += 2, to += 2 * stride)
            for (std::int64_t j = 0; j < width; j += word_lanes)
                write_pairs(pairs(from, row, first + j, columns - j), to + 2 * j);
    }
    RC_HD void interleave_panel(std::int64_t stop) const {
        interleave(args.delta, column, lanes[0] + lanes[1], stop, 2 * word_lanes, panel_pairs(), 2 * word_lanes);
    }
    RC_HD bfloat16* panel_pairs() const { return args.pairs + gradient_stretch * pair_stride(args.inner); }
};

// A sum may be as far as L3: asked for now, it is here when the stretch is done.
template <class T>
RC_HD void fetch_sum(Compute<T>* sum, int rows) {
    constexpr std::int64_t row_bytes = 2 * RC_VECTOR_BYTES;
    for (std::int64_t byte = 0; byte < rows * row_bytes; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(sum) + byte, 1);
}

// MR rows of a panel's share, from row k on, into `sum`: written where the stretch is the first, else added. Once per
// row count for all optimizers.
template <class T, int MR>
__attribute__((noinline)) void add_rows(Compute<T>* sum, bool first, const Stretch<T>& stretch, std::int64_t k) {
    if (!first) fetch_sum<T>(sum, MR);
    Accumulators<T, MR> share;
    stretch.template add_to<MR>(share, k);
    into_memory(share, sum, first);
}

// A stretch of a panel, a register tile at a time, and done(k, rows) after each.
template <class T, class Done>
struct StretchBlocks {
    const Stretch<T>& stretch;
    Compute<T>* sum;
    bool first;
    Done done;

    template <int MR>
    RC_HD void run(std::int64_t k) {
        add_rows<T, MR>(sum + k * 2 * lanes_of<T>, first, stretch, k);
        done(k, MR);
    }
};
template <class T, class Done>
RC_HD void add_stretch(const Stretch<T>& stretch, Compute<T>* sum, bool first, Done done) {
    StretchBlocks<T, Done> blocks{stretch, sum, first, done};
    visit_blocks<RC_TILE_ROWS>(stretch.args.inner, blocks);
}

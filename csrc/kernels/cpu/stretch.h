// One stretch of the rows of A and of δ, and its share of dW. Included inside an ISA's namespace.
//
// Invariant: a stretch is summed on its own and then added, so that its share is the same whatever came before it.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

// Asks for memory that will be written.
template <class C>
RC_HD void prefetch_lines(const C* from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / static_cast<std::int64_t>(sizeof(C))) __builtin_prefetch(from + i, 1);
}

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

    explicit Stretch(const WeightsArgs<T>& args) : StretchRows<T>{args} {}

    void take_rows() {}
    void take_panel() {
        delta_ = {args.delta.data + begin * args.delta.stride + column, args.delta.stride};
        if (lanes[0] == Vec<T>::lanes && (lanes[1] == Vec<T>::lanes || lanes[1] == 0)) return;
        // Columns beyond the last belong to someone else: a copy has zeros there.
        T* to = padded_;
        for (std::int64_t row = begin; row < end; ++row, to += 2 * Vec<T>::lanes)
            for (int v = 0; v < 2; ++v)
                read(args.delta.data + row * args.delta.stride + column + v * Vec<T>::lanes, lanes[v])
                    .store(to + v * Vec<T>::lanes);
        delta_ = {padded_, 2 * Vec<T>::lanes};
    }
    // acc += Σ_rows a(row, k + i)·δ(row, columns).
    template <int MR, int V>
    RC_HD void add_to(Accumulators<T, MR, V>& acc, std::int64_t k) const {
        accumulate<MR, V>(args.a.data + begin * args.a.stride + k, 1, args.a.stride, delta_.data, delta_.stride,
                          end - begin, acc, Ahead{MR, 0});
    }

private:
    Rows<T> delta_;
    alignas(64) T padded_[gradient_stretch * 2 * Vec<T>::lanes];
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

// MR rows of a panel's share, from row k on, into `sum`: written where the stretch is the first, else added. Once per
// row count for all optimizers.
template <class T, int MR, int V>
__attribute__((noinline)) void add_rows(Compute<T>* sum, bool first, const Stretch<T>& stretch, std::int64_t k) {
    // A sum may be as far as L3: asked for now, it is here when the stretch is done.
    if (!first) prefetch_lines(sum, MR * 2 * lanes_of<T>);
    Accumulators<T, MR, V> share;
    stretch.template add_to<MR, V>(share, k);
    into_memory(share, sum, first);
}

// A stretch of a panel, a register tile at a time: share.before(k, rows), the sum, share.after(k, rows).
template <class T, class Share>
struct StretchBlocks {
    const Stretch<T>& stretch;
    Compute<T>* sum;
    bool first;
    const Share& share;

    template <int MR>
    RC_HD void run(std::int64_t k) {
        share.before(k, MR);
        if (stretch.lanes[1] > 0)
            add_rows<T, MR, 2>(sum + k * 2 * lanes_of<T>, first, stretch, k);
        else
            add_rows<T, MR, 1>(sum + k * 2 * lanes_of<T>, first, stretch, k);
        share.after(k, MR);
    }
};
template <class T, class Share>
RC_HD void add_stretch(const Stretch<T>& stretch, Compute<T>* sum, bool first, const Share& share) {
    StretchBlocks<T, Share> blocks{stretch, sum, first, share};
    visit_blocks<RC_TILE_ROWS>(0, stretch.args.inner, blocks);
}

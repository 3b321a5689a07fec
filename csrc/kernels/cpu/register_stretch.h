// A stretch as micro_kernel.h takes it: A's numbers, or pairs (paired_stretch.h), or floats made of them
// (widened_stretch.h), are broadcast, one by one. Included inside an ISA's namespace.

#if RC_VECTOR_BYTES == 64
// So wide vectors are done with A's numbers faster than they come from the rows of a matrix, each in another line and
// page than the next.
constexpr bool lays_out_rows = true;
#else
constexpr bool lays_out_rows = false;
#endif

// As the products take it: `take_rows` is called once for a stretch, `take_panel` once for each of its panels. Of wide
// matrices, a tile's columns of A lie together in `args.room`, and the panel of δ in a copy, too.
template <class T>
struct Stretch : StretchRows<T> {
    using StretchRows<T>::args, StretchRows<T>::begin, StretchRows<T>::end, StretchRows<T>::column,
        StretchRows<T>::lanes;

    using Number = T;  // what is multiplied

    explicit Stretch(const WeightsArgs<T>& args) : StretchRows<T>{args} {}

    static std::int64_t room(std::int64_t rows, std::int64_t inner) {
        return lays_out(rows, inner) ? tiles(inner) * tile_size : 0;
    }

    // Columns that are not a tile's (TailShare) read A as it is.
    bool is_laid_out() const {
        const std::int64_t columns = args.columns - args.first_panel * 2 * Vec<T>::lanes;
        return columns > TailShare<T>::widest && lays_out(args.rows, args.inner);
    }
    void take_rows() {
        if (!is_laid_out()) return;
        const Rows<T> from = args.a;  // a copy: what is written could be the arguments, for all the compiler knows
        for (std::int64_t row = begin; row < end; ++row) {
            T* to = args.room + (row - begin) * tile_stride;
            for (std::int64_t k = 0; k < args.inner; k += RC_TILE_ROWS, to += tile_size)
                copy_numbers(from.data + row * from.stride + k, args.inner - k, to);
        }
    }
    void take_panel() {
        split_ = split_gradient<T>(lanes);
        delta_ = {args.delta.data + begin * args.delta.stride + column, args.delta.stride};
        if (split_.vectors == 0 || (lanes[split_.vectors - 1] == Vec<T>::lanes && !is_laid_out())) return;
        // Columns beyond the last belong to someone else: a copy has zeros there.
        T* to = padded_;
        for (std::int64_t row = begin; row < end; ++row, to += 2 * Vec<T>::lanes)
            for (int v = 0; v < 2; ++v)
                read(args.delta.data + row * args.delta.stride + column + v * Vec<T>::lanes, lanes[v])
                    .store(to + v * Vec<T>::lanes);
        delta_ = {padded_, 2 * Vec<T>::lanes};
    }
    PanelSplit split() const { return split_; }
    // acc += Σ a(row, k + i)·δ(row, columns) over rows [first, last), counted from the stretch's begin.
    template <int MR, int V>
    RC_HD void add_to(Accumulators<T, MR, V>& acc, std::int64_t k, std::int64_t first, std::int64_t last) const {
        const bool laid_out = is_laid_out();
        const T* a = laid_out ? args.room + k / RC_TILE_ROWS * tile_size : args.a.data + begin * args.a.stride + k;
        const std::int64_t a_stride = laid_out ? tile_stride : args.a.stride;
        ColumnsAhead next{laid_out ? 0 : MR};  // what lies together is foreseen, and asked for in vain
        accumulate<MR, V>(Strided<T>{a + first * a_stride, 1, a_stride}, delta_.data + first * delta_.stride,
                          delta_.stride, last - first, acc, next);
    }
    void add_tail(T* sum, bool first) const {
        const std::int64_t row = begin * args.delta.stride;
        RC_ISA::add_tail<T>(split_,
                            {{args.a.data + begin * args.a.stride, args.a.stride},
                             {args.delta.data + row + column, args.delta.stride},
                             end - begin,
                             sum,
                             first},
                            args.inner);
    }

private:
    // A tile's columns of a row: whole vectors. The next tile's are in other cache sets.
    static constexpr int tile_vectors = (RC_TILE_ROWS + Vec<T>::lanes - 1) / Vec<T>::lanes;
    static constexpr std::int64_t tile_stride = tile_vectors * Vec<T>::lanes;
    static constexpr std::int64_t tile_size = gradient_stretch * tile_stride + 64 / std::int64_t{sizeof(T)};
    // A stretch that is alone may be in the nearest cache, where narrow rows are as good as laid out.
    static bool lays_out(std::int64_t rows, std::int64_t inner) {
        return lays_out_rows && (rows > gradient_stretch ? inner >= 64 : inner > 512);
    }
    static std::int64_t tiles(std::int64_t inner) { return (inner + RC_TILE_ROWS - 1) / RC_TILE_ROWS; }
    // The first of so many numbers, or as many as a tile has.
    static RC_HD void copy_numbers(const T* from, std::int64_t count, T* to) {
        each_row<tile_vectors>([&](int v) {
            const std::int64_t at = v * Vec<T>::lanes;
            if (count >= at + Vec<T>::lanes)
                read(from + at).store(to + at);
            else if (count > at)
                read(from + at, static_cast<int>(count - at)).store(to + at);
        });
    }

    PanelSplit split_;
    Rows<T> delta_;
    alignas(64) T padded_[gradient_stretch * 2 * Vec<T>::lanes];
};

// MR rows of a panel's share, from row k on, into `sum`: written where the stretch is the first, else added. Once per
// row count for all optimizers.
template <class T, int MR, int V>
__attribute__((noinline)) void add_rows(Compute<T>* sum, bool first, const Stretch<T>& stretch, std::int64_t k,
                                        const Soon& soon) {
    // A sum may be as far as L3: asked for now, it is here when the stretch is done.
    if (!first) prefetch_lines(sum, MR * 2 * lanes_of<T>);
    const std::int64_t rows = stretch.end - stretch.begin, piece = soon.is_empty() ? rows : 16,
                       pieces = (rows + piece - 1) / piece;
    Accumulators<typename Stretch<T>::Number, MR, V> share;
    for (std::int64_t row = 0; row < rows; row += piece) {
        soon.ask(row / piece, pieces);
        stretch.template add_to<MR, V>(share, k, row, row + piece < rows ? row + piece : rows);
    }
    into_memory(share, sum, first, stretch.split().tail == 0);
}

// A stretch of a panel, a register tile at a time: share.soon, the sum at share.sum(k), share.after.
template <class T, class Share>
struct StretchBlocks {
    const Stretch<T>& stretch;
    bool first;
    const Share& share;

    template <int MR>
    RC_HD void run(std::int64_t k) {
        const Soon soon = share.soon(k, MR);
        if (stretch.split().vectors == 2)
            add_rows<T, MR, 2>(share.sum(k), first, stretch, k, soon);
        else if (stretch.split().vectors == 1)
            add_rows<T, MR, 1>(share.sum(k), first, stretch, k, soon);
        share.after(k, MR);
    }
};
template <class T, class Share>
RC_HD void add_stretch(const Stretch<T>& stretch, bool first, const Share& share) {
    if constexpr (takes_tails<T>)
        if (stretch.split().tail > 0) stretch.add_tail(share.sum(0), first);
    StretchBlocks<T, Share> blocks{stretch, first, share};
    const std::int64_t inner = stretch.args.inner;
    if (!stretch.is_laid_out()) return visit_blocks<RC_TILE_ROWS>(0, inner, blocks);
    for (std::int64_t k = 0; k < inner; k += RC_TILE_ROWS)
        visit_block<RC_TILE_ROWS>(inner - k < RC_TILE_ROWS ? static_cast<int>(inner - k) : RC_TILE_ROWS, k, blocks);
}

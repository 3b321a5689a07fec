// A stretch as micro_kernel.h takes it: A's numbers, or pairs (paired_stretch.h), or floats made of them
// (widened_stretch.h), are broadcast, one by one. Included inside an ISA's namespace.

// As the products take it: `take_rows` is called once for a stretch, `take_panel` once for each of its panels.
template <class T>
struct Stretch : StretchRows<T> {
    using StretchRows<T>::args, StretchRows<T>::begin, StretchRows<T>::end, StretchRows<T>::column,
        StretchRows<T>::lanes;

    using Number = T;  // what is multiplied

    explicit Stretch(const WeightsArgs<T>& args) : StretchRows<T>{args} {}

    void take_rows() {}
    void take_panel() {
        split_ = split_panel<T>(lanes, [](int columns) { return columns <= TailShare<T>::widest; });
        delta_ = {args.delta.data + begin * args.delta.stride + column, args.delta.stride};
        if (split_.vectors == 0 || lanes[split_.vectors - 1] == Vec<T>::lanes) return;
        // Columns beyond the last belong to someone else: a copy has zeros there.
        T* to = padded_;
        for (std::int64_t row = begin; row < end; ++row, to += 2 * Vec<T>::lanes)
            for (int v = 0; v < 2; ++v)
                read(args.delta.data + row * args.delta.stride + column + v * Vec<T>::lanes, lanes[v])
                    .store(to + v * Vec<T>::lanes);
        delta_ = {padded_, 2 * Vec<T>::lanes};
    }
    PanelSplit split() const { return split_; }
    // acc += Σ_rows a(row, k + i)·δ(row, columns).
    template <int MR, int V>
    RC_HD void add_to(Accumulators<T, MR, V>& acc, std::int64_t k) const {
        accumulate<MR, V>(args.a.data + begin * args.a.stride + k, 1, args.a.stride, delta_.data, delta_.stride,
                          end - begin, acc, Ahead<true>{MR, 0});
    }
    // The tail's columns of all rows of W, and zeros in the vector beside it where that has none.
    void add_tail(T* sum, bool first) const {
        constexpr int width = 2 * Vec<T>::lanes;
        const int at = split_.vectors * Vec<T>::lanes;
        for (std::int64_t k = 0; k < args.inner && first && at == 0; ++k) Vec<T>().store(sum + k * width + width / 2);
        const std::int64_t row = begin * args.delta.stride;
        const TailShare<T> tail{{args.a.data + begin * args.a.stride, args.a.stride},
                                {args.delta.data + row + column + at, args.delta.stride},
                                end - begin,
                                sum + at,
                                first};
        visit_block<TailShare<T>::widest>(split_.tail, args.inner, tail);
    }

private:
    PanelSplit split_;
    Rows<T> delta_;
    alignas(64) T padded_[gradient_stretch * 2 * Vec<T>::lanes];
};

// MR rows of a panel's share, from row k on, into `sum`: written where the stretch is the first, else added. Once per
// row count for all optimizers.
template <class T, int MR, int V>
__attribute__((noinline)) void add_rows(Compute<T>* sum, bool first, const Stretch<T>& stretch, std::int64_t k) {
    // A sum may be as far as L3: asked for now, it is here when the stretch is done.
    if (!first) prefetch_lines(sum, MR * 2 * lanes_of<T>);
    Accumulators<typename Stretch<T>::Number, MR, V> share;
    stretch.template add_to<MR, V>(share, k);
    into_memory(share, sum, first, stretch.split().tail == 0);
}

// A stretch of a panel, a register tile at a time: share.before, the sum at share.sum(k),
// share.after.
template <class T, class Share>
struct StretchBlocks {
    const Stretch<T>& stretch;
    bool first;
    const Share& share;

    template <int MR>
    RC_HD void run(std::int64_t k) {
        share.before(k, MR, 0, 1);
        if (stretch.split().vectors == 2)
            add_rows<T, MR, 2>(share.sum(k), first, stretch, k);
        else if (stretch.split().vectors == 1)
            add_rows<T, MR, 1>(share.sum(k), first, stretch, k);
        share.after(k, MR);
    }
};
template <class T, class Share>
RC_HD void add_stretch(const Stretch<T>& stretch, bool first, const Share& share) {
    if constexpr (computes_itself<T>)
        if (stretch.split().tail > 0) stretch.add_tail(share.sum(0), first);
    StretchBlocks<T, Share> blocks{stretch, first, share};
    visit_blocks<RC_TILE_ROWS>(0, stretch.args.inner, blocks);
}

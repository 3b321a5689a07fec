// A stretch as tile_kernel.h takes it, in place of the register tiles of register_stretch.h. Included inside an ISA's
// namespace.
//
// Invariant: sums go on from what is there, step by step, so that a batch's is the same however its rows come in calls
// of whole steps.

constexpr Words pairs_of_ones = Words{} + 0x3f803f80u;

template <class T>
struct Stretch : PairedStretch<T> {
    using PairedStretch<T>::args, PairedStretch<T>::begin, PairedStretch<T>::end, PairedStretch<T>::lanes,
        PairedStretch<T>::panel_pairs, PairedStretch<T>::panel_of_delta;
    static constexpr std::int64_t depth = step_length;

    explicit Stretch(const WeightsArgs<T>& args)
        : PairedStretch<T>{{args}}, room_rows_(this->rows_together(args.inner)) {}

    // A's pairs lie along its rows; the left operand wants them along its columns. Tiles of 16 of A's columns × a step
    // of its rows follow one another, each contiguous, plane after plane; a stretch has room for a whole number of such
    // steps, and of pairs of such columns.
    void take_rows() const {
        const Rows<T> a = args.a;
        for (std::int64_t row = begin; row < end; row += depth)
            for (std::int64_t k = 0; k < args.inner; k += 2 * tile_height)
                for (int p = 0; p < planes<T>; ++p) {
                    const bfloat16* from = reinterpret_cast<const bfloat16*>(a.data + row * a.stride + k) + p * plane;
                    bfloat16 *low = tile(k, row - begin) + p * tile_size,
                             *high = tile(k + tile_height, row - begin) + p * tile_size;
                    if (row + depth <= end && k + 2 * tile_height <= args.inner)
                        turn(from, planes<T> * a.stride, low, high);
                    else
                        turn_padded(from, planes<T> * a.stride, end - row, args.inner - k, low, high);
                }
    }
    // Pairs of δ, a step of each plane after the other.
    void take_panel() const {
        auto* to = reinterpret_cast<bfloat16*>(panel_pairs());
        for (int p = 0; p < planes<T>; ++p) {
            const Rows<bfloat16> from = plane_of_delta(p);
            if (planes<T> == 1) return interleave_panel(from, begin, end, begin + steps() * depth, lanes, to);
            for (int step = 0; step < steps(); ++step)
                interleave_panel(from, begin + step * depth, end, begin + (step + 1) * depth, lanes,
                                 to + (step * planes<T> + p) * depth * sums_width);
        }
    }
    int steps() const { return static_cast<int>((end - begin + depth - 1) / depth); }
    // Adds the share of step `step` in dW's rows [k, k + rows) to the tiles.
    RC_HD void add(int step, std::int64_t k, int rows) const {
        const std::int64_t row = step * depth;
        add_step<T, false>(tile(k, row), rows > tile_height ? tile(k + tile_height, row) : nullptr, depth, tile_size,
                           reinterpret_cast<const bfloat16*>(panel_pairs()) + planes<T> * row * sums_width);
    }

    // += Σ δ in the panel's columns: a product with ones, whose rows are all the same, in the tiles and in memory.
    RC_HD void add_sum_of_rows(float* sum, bool first) const {
        tile_load<4>(reinterpret_cast<const bfloat16*>(&pairs_of_ones), 0);
        if (first)
            tile_zero<0>(), tile_zero<1>();
        else
            tile_load<0>(sum, 0), tile_load<1>(sum + word_lanes, 0);
        const auto* laid_out = reinterpret_cast<const bfloat16*>(panel_pairs());
        for (int plane_step = 0; plane_step < planes<T> * steps(); ++plane_step) {
            load_w(laid_out + plane_step * step_length * sums_width);
            add_dots(false);
        }
        tile_store<0>(sum, 0), tile_store<1>(sum + word_lanes, 0);
    }

private:
    RC_HD Rows<bfloat16> plane_of_delta(int p) const {
        const Rows<T> delta = panel_of_delta();
        return {reinterpret_cast<const bfloat16*>(delta.data) + p * plane, planes<T> * delta.stride};
    }
    static constexpr std::int64_t tile_size = tile_height * depth;
    RC_HD bfloat16* tile(std::int64_t k, std::int64_t row) const {
        return reinterpret_cast<bfloat16*>(args.room + k * room_rows_ + row * tile_height);
    }
    // What there is of 32 rows × 32 columns, and zeros.
    static __attribute__((noinline)) void turn_padded(const bfloat16* a, std::int64_t stride, std::int64_t rows,
                                                      std::int64_t columns, bfloat16* low, bfloat16* high) {
        alignas(64) bfloat16 padded[depth][depth] = {};
        copy_padded(a, stride, rows < depth ? static_cast<int>(rows) : static_cast<int>(depth),
                    columns < depth ? columns : depth, padded);
        turn(padded[0], depth, low, high);
    }
    // 32 rows × 32 columns of bfloat16, as words that have two columns: turned, then their halves parted.
    static RC_HD void turn(const bfloat16* a, std::int64_t stride, bfloat16* low, bfloat16* high) {
        Vec<float> upper[word_lanes], lower[word_lanes];
        each_row<word_lanes>([&](int i) { upper[i].v = (Vec<float>::Native)read_pairs(a + i * stride); });
        transpose<float>(upper);
        each_row<word_lanes>(
            [&](int i) { lower[i].v = (Vec<float>::Native)read_pairs(a + (word_lanes + i) * stride); });
        transpose<float>(lower);
        each_row<word_lanes>([&](int i) {
            Words even, odd;
            separate((Words)upper[i].v, (Words)lower[i].v, even, odd);
            bfloat16* to = i < word_lanes / 2 ? low + 2 * i * depth : high + (2 * i - word_lanes) * depth;
            write_pairs(even, to);
            write_pairs(odd, to + depth);
        });
    }

    const std::int64_t room_rows_;
};

// += the share of dW's rows [k, k + rows), what comes next being asked for meanwhile.
template <class T, class Share>
RC_HD void add_rows(float* sum, bool first, const Stretch<T>& stretch, std::int64_t k, int rows, const Share& share) {
    StoredTile<T, block_rows> part;  // where memory has not the rows of whole tiles
    const bool whole = rows == block_rows;
    const std::size_t bytes = static_cast<std::size_t>(rows * sums_width) * sizeof *sum;
    if (first) {
        clear_sums();
    } else {
        if (!whole) std::memcpy(part.at, sum, bytes);
        load_sums(whole ? sum : part.at[0], rows);
    }
    Soon soon = share.soon(k, rows);
    if (!first) share.add_next_sums(soon, k, rows);
    const int steps = stretch.steps();
    for (int step = 0; step < steps; ++step) {
        soon.ask(step, steps);
        stretch.add(step, k, rows);
    }
    store_sums(whole ? sum : part.at[0], rows);
    if (!whole) std::memcpy(sum, part.at, bytes);
}
template <class T, class Share>
RC_HD void add_stretch(const Stretch<T>& stretch, bool first, const Share& share) {
    for (std::int64_t k = 0; k < stretch.args.inner; k += block_rows) {
        const int rows = rows_of_block(stretch.args.inner - k);
        add_rows(share.sum(k), first, stretch, k, rows, share);
        share.after(k, rows);
    }
}

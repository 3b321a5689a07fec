// A stretch as tile_kernel.h takes it, in place of the register tiles of register_stretch.h. Included inside an ISA's
// namespace.
//
// Invariant: sums go on from what is there, step by step, so that a batch's is the same however its rows come in calls
// of whole steps.

template <class T>
struct Stretch : PairedStretch<T> {
    using PairedStretch<T>::args, PairedStretch<T>::begin, PairedStretch<T>::end, PairedStretch<T>::rows_of_a_pair,
        PairedStretch<T>::pairs, PairedStretch<T>::panel_pairs;
    static constexpr std::int64_t depth = step_length<T>;

    explicit Stretch(const WeightsArgs<T>& args)
        : PairedStretch<T>{{args}}, room_rows_(this->rows_together(args.inner)) {}

    // A's pairs lie along its rows; the left operand wants them along its columns. Tiles of 16 of A's columns × a step
    // of its rows follow one another, each contiguous; a stretch has room for a whole number of such steps.
    void take_rows() const {
        const Rows<T> a = args.a;
        for (std::int64_t row = begin; row < end; row += depth) {
            std::int64_t k = 0;
            if constexpr (rows_of_a_pair == 2)
                if (row + depth <= end)
                    for (; k + 2 * tile_height <= args.inner; k += 2 * tile_height)
                        turn(a.data + row * a.stride + k, a.stride, tile(k, row - begin),
                             tile(k + tile_height, row - begin));
            for (; k < args.inner; k += tile_height) take_tile(a, row, k);
        }
    }
    void take_panel() const { this->interleave_panel(begin + (end - begin + depth - 1) / depth * depth); }
    int steps() const { return static_cast<int>((end - begin + depth - 1) / depth); }
    // Adds the share of step `step` in dW's rows [k, k + rows) to the tiles.
    RC_HD void add(int step, std::int64_t k, int rows) const {
        const std::int64_t row = step * depth;
        add_step<false>(tile(k, row), rows > tile_height ? tile(k + tile_height, row) : nullptr, depth,
                        panel_pairs() + row * sums_width * operand_parts<T>);
    }

    // Σ δ of rows [row, row + rows), one stretch, in a vector of the panel's columns: of the pairs that are laid out,
    // or, where they have not all rows of the batch, the same pairs made once more. Two sums, as each addition waits
    // for the one before it.
    RC_HD Vec<float> sum_of_pairs(std::int64_t row, std::int64_t rows, int half) const {
        const T* laid_out = panel_pairs() + (row * word_lanes + half * word_lanes) * 2;
        const auto at = [&](std::int64_t i) {
            if (begin == 0) return read_pairs(laid_out + i * 4 * word_lanes);
            return pairs(args.delta, row + 2 * i, this->column + half * word_lanes, this->lanes[half]);
        };
        Vec<float> even, odd;
        std::int64_t i = 0;
        for (; 2 * i + 2 < rows; i += 2) {
            even = add_pair(at(i), even);
            odd = add_pair(at(i + 1), odd);
        }
        if (2 * i < rows) even = add_pair(at(i), even);
        return even + odd;
    }

private:
    RC_HD T* tile(std::int64_t k, std::int64_t row) const { return args.room + k * room_rows_ + row * tile_height; }
    void take_tile(Rows<T> a, std::int64_t row, std::int64_t k) const {
        Vec<float> block[word_lanes];
        if (row + depth <= end && k + tile_height <= args.inner)
            each_row<word_lanes>(
                [&](int i) { block[i].v = (Vec<float>::Native)this->whole_pairs(a, row + rows_of_a_pair * i, k); });
        else
            for (int i = 0; i < word_lanes; ++i)
                block[i].v = (Vec<float>::Native)pairs(a, row + rows_of_a_pair * i, k, args.inner - k);
        transpose<float>(block);
        T* to = tile(k, row - begin);
        for (int i = 0; i < tile_height; ++i) write_pairs((Words)block[i].v, to + i * depth);
    }
    // 32 rows × 32 columns of bfloat16, as words that have two columns: turned, then their halves parted.
    static RC_HD void turn(const T* a, std::int64_t stride, T* low, T* high) {
        Vec<float> upper[word_lanes], lower[word_lanes];
        each_row<word_lanes>([&](int i) { upper[i].v = (Vec<float>::Native)read_pairs(a + i * stride); });
        transpose<float>(upper);
        each_row<word_lanes>(
            [&](int i) { lower[i].v = (Vec<float>::Native)read_pairs(a + (word_lanes + i) * stride); });
        transpose<float>(lower);
        each_row<word_lanes>([&](int i) {
            Words even, odd;
            separate((Words)upper[i].v, (Words)lower[i].v, even, odd);
            T* to = i < word_lanes / 2 ? low + 2 * i * depth : high + (2 * i - word_lanes) * depth;
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
    const Soon soon = share.soon(k, rows);
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

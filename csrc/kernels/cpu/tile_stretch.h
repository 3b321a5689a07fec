// A stretch as tile_kernel.h takes it, in place of the register tiles of register_stretch.h. Included inside an ISA's
// namespace.

template <class T>
struct Stretch : PairedStretch<T> {
    using PairedStretch<T>::args, PairedStretch<T>::begin, PairedStretch<T>::end, PairedStretch<T>::rows_of_a_pair,
        PairedStretch<T>::pairs, PairedStretch<T>::panel_pairs;
    static constexpr std::int64_t depth = step_length<T>;

    explicit Stretch(const WeightsArgs<T>& args) : PairedStretch<T>{{args}} {}

    // A's pairs lie along its rows; the left operand wants them along its columns. Tiles of 16 of A's columns × a step
    // of its rows follow one another, each contiguous; a stretch has room for a whole number of such steps.
    void take_rows() const {
        const Rows<T> a = args.a;
        for (std::int64_t k = 0; k < args.inner; k += tile_height)
            for (std::int64_t row = begin; row < end; row += depth) {
                Vec<float> block[word_lanes];
                if (row + depth <= end && k + tile_height <= args.inner)
                    each_row<word_lanes>([&](int i) {
                        block[i].v = (Vec<float>::Native)this->whole_pairs(a, row + rows_of_a_pair * i, k);
                    });
                else
                    for (int i = 0; i < word_lanes; ++i)
                        block[i].v = (Vec<float>::Native)pairs(a, row + rows_of_a_pair * i, k, args.inner - k);
                transpose<float>(block);
                T* to = tile(k, row - begin);
                for (int i = 0; i < tile_height; ++i) write_pairs((Words)block[i].v, to + i * depth);
            }
    }
    void take_panel() const { this->interleave_panel(begin + (end - begin + depth - 1) / depth * depth); }
    // The share of dW's rows [k, k + rows), left in the tiles.
    RC_HD void sum_rows(std::int64_t k, int rows) const {
        clear_sums();
        for (std::int64_t row = 0; row < end - begin; row += depth)
            add_step(tile(k, row), rows > tile_height ? tile(k + tile_height, row) : nullptr, depth,
                     panel_pairs() + row * 2 * word_lanes * operand_parts<T>);
    }

private:
    RC_HD T* tile(std::int64_t k, std::int64_t row) const {
        return args.room + k * gradient_stretch + row * tile_height;
    }
};

template <class T>
__attribute__((noinline)) void add_rows(float* sum, bool first, const Stretch<T>& stretch, std::int64_t k, int rows) {
    if (!first) prefetch_lines(sum, rows * 2 * word_lanes);
    stretch.sum_rows(k, rows);
    sums_into_memory<T>(sum, first, rows);
}
template <class T, class Share>
RC_HD void add_stretch(const Stretch<T>& stretch, float* sum, bool first, const Share& share) {
    for (std::int64_t k = 0; k < stretch.args.inner; k += block_rows) {
        const int rows = rows_of_block(stretch.args.inner - k);
        share.before(k, rows);
        add_rows(sum + k * 2 * word_lanes, first, stretch, k, rows);
        share.after(k, rows);
    }
}

// A stretch in bfloat16 as tile_kernel.h takes it. Included inside an ISA's namespace.

template <>
struct Stretch<bfloat16> : PairedStretch {
    explicit Stretch(const WeightsArgs<bfloat16>& args) : PairedStretch{{args}} {}

    // A's pairs lie along its rows; the left operand wants them along its columns. Tiles of 16 of A's columns × 32 of
    // its rows follow one another, each contiguous; a stretch has room for four such steps of rows.
    void take_rows() const {
        for (std::int64_t k = 0; k < args.inner; k += tile_height)
            for (std::int64_t row = begin; row < end; row += tile_depth) {
                Vec<float> block[word_lanes];
                for (int i = 0; i < word_lanes; ++i)
                    block[i].v = (Vec<float>::Native)pairs(args.a, row + 2 * i, k, args.inner - k);
                transpose<float>(block);
                bfloat16* to = tile(k, row - begin);
                for (int i = 0; i < tile_height; ++i) write_pairs((Words)block[i].v, to + i * tile_depth);
            }
    }
    void take_panel() const { interleave_panel(begin + (end - begin + tile_depth - 1) / tile_depth * tile_depth); }
    // The share of dW's rows [k, k + rows), left in the tiles.
    RC_HD void sum_rows(std::int64_t k, int rows) const {
        clear_sums();
        for (std::int64_t row = 0; row < end - begin; row += tile_depth)
            add_step(tile(k, row), rows > tile_height ? tile(k + tile_height, row) : nullptr, tile_depth,
                     panel_pairs() + row * 2 * word_lanes);
    }

private:
    RC_HD bfloat16* tile(std::int64_t k, std::int64_t row) const {
        return args.pairs + k * gradient_stretch + row * tile_height;
    }
};

// In place of the register tiles of stretch.h.
__attribute__((noinline)) void add_rows(float* sum, bool first, const Stretch<bfloat16>& stretch, std::int64_t k,
                                        int rows) {
    if (!first) prefetch_lines(sum, rows * 2 * word_lanes);
    stretch.sum_rows(k, rows);
    sums_into_memory(sum, first, rows);
}
template <class Share>
RC_HD void add_stretch(const Stretch<bfloat16>& stretch, float* sum, bool first, const Share& share) {
    for (std::int64_t k = 0; k < stretch.args.inner; k += block_rows) {
        const int rows = rows_of_block(stretch.args.inner - k);
        share.before(k, rows);
        add_rows(sum + k * 2 * word_lanes, first, stretch, k, rows);
        share.after(k, rows);
    }
}

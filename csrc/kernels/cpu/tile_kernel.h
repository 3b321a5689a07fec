// Sums of bfloat16 products by tiles (tile_unit.h), in place of the register tiles of micro_kernel.h: 32 rows × one
// panel at a time. Included inside an ISA's namespace.
//
// Invariant: as micro_kernel.h's. A row of sums comes of the same row of A's tile alone, so rows beyond the last may
// hold anything. Numbers beyond the last k are zeros in both operands: a zero times infinity would be NaN.

constexpr int tile_height = 16;          // rows of a tile
constexpr std::int64_t tile_depth = 32;  // bfloat16 numbers in a row of A's tile, and rows of W in one of W's
constexpr int block_rows = 2 * tile_height;
static_assert(word_lanes == tile_height && RC_TILE_ROWS == block_rows, "a panel is as wide as two tiles");

// Sums of more terms than this are cut and the parts added, as in micro_kernel.h. A step of 32 terms is summed apart
// and then added, so that a long sum grows by one rounding a step.
constexpr std::int64_t longest_tile_sum = 256 * tile_depth;

template <>
struct MatrixUnit<bfloat16> : ConfiguredTiles {};

RC_HD int rows_of_block(std::int64_t left) { return left < block_rows ? static_cast<int>(left) : block_rows; }

// Tiles 0 to 3 are the sums of [rows 0–15, 16–31] × [columns 0–15, 16–31].
RC_HD void clear_sums() { tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>(); }

// += A·W for one step of k. `lower` is null where there are but 16 rows.
RC_HD void add_step(const bfloat16* upper, const bfloat16* lower, std::int64_t stride, const bfloat16* w) {
    constexpr std::int64_t w_stride = 4 * word_lanes;
    tile_load<6>(w, w_stride);
    tile_load<7>(w + 2 * word_lanes, w_stride);
    tile_load<4>(upper, stride);
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    if (!lower) return;
    tile_load<5>(lower, stride);
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
}

// `rows` of the sums to memory that is their own or has sums already, as wide as a panel.
RC_HD void sums_into_memory(float* to, bool first, int rows) {
    constexpr std::int64_t width = 2 * word_lanes;
    StoredTile<bfloat16, block_rows> stored;
    const bool straight = first && rows == block_rows;
    float* room = straight ? to : stored.at[0];
    tile_store<0>(room, width);
    tile_store<1>(room + word_lanes, width);
    if (rows > tile_height) {
        tile_store<2>(room + tile_height * width, width);
        tile_store<3>(room + tile_height * width + word_lanes, width);
    }
    if (straight) return;
    for (int i = 0; i < rows; ++i) {
        Accumulators<bfloat16, 1, 2> row = stored.rows<1>(i);
        into_memory(row, to + i * width, first);
    }
}

// Where rows or numbers are missing for a tile: what there is of a step of A, with zeros.
struct PaddedStep {
    alignas(64) bfloat16 at[block_rows][tile_depth] = {};

    void copy(const bfloat16* a, std::int64_t stride, int rows, std::int64_t length) {
        for (int i = 0; i < rows; ++i) {
            std::memcpy(at[i], a + i * stride, static_cast<std::size_t>(length) * sizeof *a);
            std::memset(at[i] + length, 0, static_cast<std::size_t>(tile_depth - length) * sizeof *a);
        }
    }
};

// Σ_s A_s·W_s for rows [row, row + rows) and one panel of every W_s.
__attribute__((noinline)) void product_into(StoredTile<bfloat16, block_rows>& sum, const Source<bfloat16>* sources,
                                            int n, std::int64_t row, int rows, std::int64_t panel) {
    constexpr std::int64_t width = 2 * word_lanes;
    PaddedStep padded;
    std::int64_t terms = 0;
    bool first = true;
    clear_sums();
    for (int s = 0; s < n; ++s) {
        const Source<bfloat16>& source = sources[s];
        const std::int64_t stride = source.rows.stride, inner = source.inner;
        const bfloat16* a = source.rows.data + row * stride;
        const bfloat16* w = source.panels + panel * operand_rows<bfloat16>(inner) * width;
        for (std::int64_t k = 0; k < inner; k += tile_depth, w += tile_depth * width, terms += tile_depth) {
            if (terms == longest_tile_sum) {
                sums_into_memory(sum.at[0], first, rows);
                clear_sums();
                terms = 0;
                first = false;
            }
            const std::int64_t length = inner - k < tile_depth ? inner - k : tile_depth;
            if (rows == block_rows && length == tile_depth) {
                add_step(a + k, a + k + tile_height * stride, stride, w);
            } else {
                padded.copy(a + k, stride, rows, length);
                add_step(padded.at[0], rows > tile_height ? padded.at[tile_height] : nullptr, tile_depth, w);
            }
        }
    }
    sums_into_memory(sum.at[0], first, rows);
}

// One panel of the sums, and the epilogue on each block of rows. Registers take 8 of them at a time.
template <class Epilogue>
struct StoredBlocks {
    const StoredTile<bfloat16, block_rows>& sum;
    std::int64_t row;
    Epilogue& epilogue;

    template <int MR>
    __attribute__((noinline)) void run(std::int64_t first) {
        Accumulators<bfloat16, MR, 2> rows = sum.template rows<MR>(first);
        epilogue.finish_whole(rows, row + first);
    }
};
template <class Epilogue>
RC_HD void sum_panel(std::int64_t begin, std::int64_t end, const Source<bfloat16>* sources, int n, std::int64_t panel,
                     Epilogue& epilogue) {
    StoredTile<bfloat16, block_rows> sum;
    for (std::int64_t row = begin; row < end; row += block_rows) {
        const int here = rows_of_block(end - row);
        product_into(sum, sources, n, row, here, panel);
        if (Epilogue::in_registers && epilogue.whole()) {
            StoredBlocks<Epilogue> blocks{sum, row, epilogue};
            visit_blocks<8>(0, here, blocks);
        } else {
            epilogue.finish_from_memory(sum.at[0], here, row);
        }
    }
}

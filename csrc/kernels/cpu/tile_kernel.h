// Sums of products of bfloat16 or bfloat16x2 by tiles (tile_unit.h), in place of micro_kernel.h's: 32 rows × one panel
// at a time. Included inside an ISA's namespace.
//
// Invariant: as micro_kernel.h's. A row of sums comes of the same row of A's tile alone, so rows beyond the last may
// hold anything. Numbers beyond the last k are zeros in both operands: a zero times infinity would be NaN.

constexpr int tile_height = 16;  // rows of a tile; 16 pairs of bfloat16 are as wide
constexpr int block_rows = 2 * tile_height;
// Numbers in a row of A's tile, and so terms that a step adds.
template <class T>
constexpr std::int64_t step_length = 64 / sizeof(T);
static_assert(word_lanes == tile_height && RC_TILE_ROWS == block_rows, "a panel is as wide as two tiles");

// Sums of more steps than this are cut and the parts added, as in micro_kernel.h. A step's terms are summed apart and
// then added, so that a long sum grows by one rounding a step.
constexpr int most_steps = 256;

template <class T>
struct MatrixUnit : ConfiguredTiles {};

RC_HD int rows_of_block(std::int64_t left) { return left < block_rows ? static_cast<int>(left) : block_rows; }

// Tiles 0 to 3 are the sums of [rows 0–15, 16–31] × [columns 0–15, 16–31].
RC_HD void clear_sums() { tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>(); }

// += A·W for one step of pairs along k. `lower` is null where there are but 16 rows.
RC_HD void add_step(const bfloat16* upper, const bfloat16* lower, std::int64_t stride, const bfloat16* w,
                    std::int64_t w_stride = 4 * word_lanes) {
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
// The same for both halves of W.
RC_HD void add_step(const bfloat16x2* upper, const bfloat16x2* lower, std::int64_t stride, const bfloat16x2* w) {
    for (int half = 0; half < 2; ++half, w += 2 * word_lanes)
        add_step(&upper->low, lower ? &lower->low : nullptr, 2 * stride, &w->low, 8 * word_lanes);
}

// `rows` of the sums to memory that is their own or has sums already, as wide as a panel.
template <class T>
RC_HD void sums_into_memory(float* to, bool first, int rows) {
    constexpr std::int64_t width = 2 * word_lanes;
    StoredTile<T, block_rows> stored;
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
        Accumulators<T, 1, 2> row = stored.template rows<1>(i);
        into_memory(row, to + i * width, first);
    }
}

// Where rows or numbers are missing for a tile: what there is of a step of A, with zeros.
template <class T>
struct PaddedStep {
    alignas(64) T at[block_rows][step_length<T>] = {};

    void copy(const T* a, std::int64_t stride, int rows, std::int64_t length) {
        for (int i = 0; i < rows; ++i) {
            std::memcpy(at[i], a + i * stride, static_cast<std::size_t>(length) * sizeof *a);
            std::memset(at[i] + length, 0, static_cast<std::size_t>(step_length<T> - length) * sizeof *a);
        }
    }
};

// Σ_s A_s·W_s for rows [row, row + rows) and one panel of every W_s.
template <class T>
__attribute__((noinline)) void product_into(StoredTile<T, block_rows>& sum, const Source<T>* sources, int n,
                                            std::int64_t row, int rows, std::int64_t panel) {
    constexpr std::int64_t width = 2 * word_lanes, depth = step_length<T>;
    PaddedStep<T> padded;
    int steps = 0;
    bool first = true;
    clear_sums();
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const std::int64_t stride = source.rows.stride, inner = source.inner;
        const T* a = source.rows.data + row * stride;
        const std::int64_t panel_size = operand_rows<T>(inner) * width;
        constexpr std::int64_t step_size = depth * width * operand_parts<T>;
        const T* w = source.panels + panel * panel_size;
        for (std::int64_t k = 0; k < inner; k += depth, w += step_size, ++steps) {
            // The first rows fetch the next panel for all, as in micro_kernel.h.
            if (row == 0)
                for (std::int64_t i = 0; i < step_size; i += 64 / static_cast<std::int64_t>(sizeof *w))
                    __builtin_prefetch(w + panel_size + i, 0, 2);
            if (steps == most_steps) {
                sums_into_memory<T>(sum.at[0], first, rows);
                clear_sums();
                steps = 0;
                first = false;
            }
            const std::int64_t length = inner - k < depth ? inner - k : depth;
            if (rows == block_rows && length == depth) {
                add_step(a + k, a + k + tile_height * stride, stride, w);
            } else {
                padded.copy(a + k, stride, rows, length);
                add_step(padded.at[0], rows > tile_height ? padded.at[tile_height] : nullptr, depth, w);
            }
        }
    }
    sums_into_memory<T>(sum.at[0], first, rows);
}

// One panel of the sums, and the epilogue on each block of rows. Registers take 8 of them at a time.
template <class T, class Epilogue>
RC_HD void sum_panel(std::int64_t begin, std::int64_t end, const Source<T>* sources, int n, std::int64_t panel,
                     Epilogue& epilogue) {
    StoredTile<T, block_rows> sum;
    for (std::int64_t row = begin; row < end; row += block_rows) {
        const int here = rows_of_block(end - row);
        product_into(sum, sources, n, row, here, panel);
        finish_stored<8>(sum, here, row, epilogue);
    }
}

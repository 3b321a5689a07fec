// Sums of products of bfloat16 or bfloat16x2 by tiles (tile_unit.h), step by step. Included inside an ISA's namespace.
//
// Invariant: a row of sums comes of the same row of A's tile alone, so rows beyond the last may hold anything. Numbers
// beyond the last k are zeros in both operands: a zero times infinity would be NaN.

constexpr int tile_height = 16;  // rows of a tile; 16 pairs of bfloat16 are as wide
constexpr int block_rows = 2 * tile_height;
constexpr std::int64_t step_length = plane;  // numbers in a row of A's tile, and so terms that a step adds
static_assert(word_lanes == tile_height && RC_TILE_ROWS == block_rows, "a panel is as wide as two tiles");

template <class T>
struct MatrixUnit : ConfiguredTiles {};

RC_HD int rows_of_block(std::int64_t left) { return left < block_rows ? static_cast<int>(left) : block_rows; }

// Tiles 0 to 3 are the sums of [rows 0–15, 16–31] × [columns 0–15, 16–31].
RC_HD void clear_sums() { tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>(); }
// From and to memory that is as wide as a panel; of 16 rows, or of 32.
constexpr std::int64_t sums_width = 2 * word_lanes;
RC_HD void load_sums(const float* from, int rows) {
    tile_load<0>(from, sums_width);
    tile_load<1>(from + word_lanes, sums_width);
    if (rows <= tile_height) return;
    tile_load<2>(from + tile_height * sums_width, sums_width);
    tile_load<3>(from + tile_height * sums_width + word_lanes, sums_width);
}
RC_HD void store_sums(float* to, int rows) {
    tile_store<0>(to, sums_width);
    tile_store<1>(to + word_lanes, sums_width);
    if (rows <= tile_height) return;
    tile_store<2>(to + tile_height * sums_width, sums_width);
    tile_store<3>(to + tile_height * sums_width + word_lanes, sums_width);
}

// A's tiles. Where W's are to stay in L1 for the next rows, A's must not drive them out.
template <int tile, bool once>
RC_HD void load_a(const bfloat16* from, std::int64_t stride) {
    if constexpr (once)
        tile_load_once<tile>(from, stride);
    else
        tile_load<tile>(from, stride);
}
// sums += A·W of what is loaded: of rows 0 to 15 in tile 4 and, where there are such, 16 to 31 in tile 5, and of
// columns 0 to 15 in tile 6 and 16 to 31 in tile 7.
RC_HD void add_dots(bool has_lower) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    if (!has_lower) return;
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
}
// W's tiles of one plane, which are rows of pairs along k.
RC_HD void load_w(const bfloat16* w) {
    tile_load<6>(w, 2 * sums_width);
    tile_load<7>(w + sums_width, 2 * sums_width);
}
// += A·W for one step along k. `lower` is null where there are but 16 rows; a plane of A lies `next_plane` before the
// next one.
template <class T, bool once>
RC_HD void add_step(const bfloat16* upper, const bfloat16* lower, std::int64_t stride,
                    [[maybe_unused]] std::int64_t next_plane, const bfloat16* w) {
    load_w(w);
    if constexpr (planes<T> == 2) {  // the low halves, which meet W's high ones alone (docs/math.md)
        load_a<4, once>(upper + next_plane, stride);
        if (lower) load_a<5, once>(lower + next_plane, stride);
        add_dots(lower);
    }
    load_a<4, once>(upper, stride);
    if (lower) load_a<5, once>(lower, stride);
    add_dots(lower);
    if constexpr (planes<T> == 2) {
        load_w(w + step_length * sums_width);
        add_dots(lower);
    }
}
// The same of rows of A that are there, from the first number of a block on.
template <bool once, class T>
RC_HD void add_rows_of_a(const T* upper, const T* lower, std::int64_t stride, const T* w) {
    const auto halves = [](const T* p) { return reinterpret_cast<const bfloat16*>(p); };
    add_step<T, once>(halves(upper), halves(lower), planes<T> * stride, plane, halves(w));
}

// `rows` of the sums to memory that is their own or has sums already, as wide as a panel.
template <class T>
RC_HD void sums_into_memory(float* to, bool first, int rows) {
    if (first && rows == block_rows) return store_sums(to, rows);
    StoredTile<T, block_rows> stored;
    store_sums(stored.at[0], rows);
    for (int i = 0; i < rows; ++i) {
        Accumulators<T, 1, 2> row = stored.template rows<1>(i);
        into_memory(row, to + i * sums_width, first);
    }
}

// `rows` × `length` numbers of a plane, and zeros behind a row's last one.
RC_HD void copy_padded(const bfloat16* from, std::int64_t stride, int rows, std::int64_t length,
                       bfloat16 (*to)[step_length]) {
#if defined(__AVX512BW__)
    const auto there = static_cast<__mmask32>((std::uint64_t{1} << length) - 1);
    for (int i = 0; i < rows; ++i) _mm512_storeu_si512(to[i], _mm512_maskz_loadu_epi16(there, from + i * stride));
#else
    for (int i = 0; i < rows; ++i) {
        std::memcpy(to[i], from + i * stride, static_cast<std::size_t>(length) * sizeof **to);
        std::memset(to[i] + length, 0, static_cast<std::size_t>(step_length - length) * sizeof **to);
    }
#endif
}
// Where rows or numbers are missing for a tile: what there is of a step of A.
template <class T>
__attribute__((noinline)) void add_padded_step(const T* a, std::int64_t stride, int rows, std::int64_t length,
                                               const T* w) {
    alignas(64) bfloat16 padded[planes<T>][block_rows][step_length];
    const auto* from = reinterpret_cast<const bfloat16*>(a);
    for (int p = 0; p < planes<T>; ++p) copy_padded(from + p * plane, planes<T> * stride, rows, length, padded[p]);
    add_step<T, false>(padded[0][0], rows > tile_height ? padded[0][tile_height] : nullptr, step_length,
                       block_rows * step_length, reinterpret_cast<const bfloat16*>(w));
}

template <class T>
RC_HD std::int64_t steps_of(const Source<T>* sources, int n) {
    std::int64_t steps = 0;
    for (int s = 0; s < n; ++s) steps += (sources[s].inner + step_length - 1) / step_length;
    return steps;
}

// A place among the steps of Σ_s A_s·W_s for one panel of every W_s.
template <class T>
class Steps {
public:
    static constexpr std::int64_t size = step_length * sums_width;  // elements of W
    static constexpr int bytes = size * sizeof(T), lines = bytes / 64;

    RC_HD Steps(const Source<T>* sources, int n, std::int64_t panel)
        : source_(sources), end_(sources + n), panel_(panel) {
        begin_source();
    }

    // Steps from here on that are whole and one source's, `most` at the most: of A's rows from `row` on.
    struct Whole {
        const T *a, *w;
        std::int64_t stride;
        int count;
    };
    RC_HD Whole whole(std::int64_t row, int most) const {
        const Rows<T> rows = source_->rows;
        const auto left = static_cast<int>((source_->inner - k_) / step_length);
        return {rows.data + row * rows.stride + k_, w_, rows.stride, left < most ? left : most};
    }
    RC_HD void skip(int count) {
        w_ += count * size;
        k_ += count * step_length;
        if (k_ < source_->inner) return;
        ++source_;
        begin_source();
    }
    // Adds what the step here has for rows [row, row + rows).
    RC_HD void add_padded(std::int64_t row, int rows) const {
        const std::int64_t stride = source_->rows.stride, left = source_->inner - k_;
        add_padded_step(source_->rows.data + row * stride + k_, stride, rows, left < step_length ? left : step_length,
                        w_);
    }
    // Asks the second-level cache for lines [first, last) of the panel after this one, where the step of `w` is in it.
    RC_HD void fetch_next_panel(const T* w, int first, int last) const {
        const char* next = reinterpret_cast<const char*>(w + panel_size());
        for (int i = first; i < last; ++i) __builtin_prefetch(next + 64 * i, 0, 2);
    }

private:
    RC_HD std::int64_t panel_size() const { return operand_rows<T>(source_->inner) * sums_width; }
    RC_HD void begin_source() {
        k_ = 0;
        while (source_ != end_ && source_->inner == 0) ++source_;
        if (source_ != end_) w_ = source_->panels + panel_ * panel_size();
    }

    const Source<T>* source_;
    const Source<T>* end_;
    std::int64_t panel_, k_ = 0;
    const T* w_ = nullptr;
};

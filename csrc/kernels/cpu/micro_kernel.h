// The register tile: `Rows` rows × two vectors of columns, summed over every source before anything is written.
// Included inside the namespace of one instruction set.
//
// Invariant: an element's sum depends on its row, its column and the sources alone, never on which rows share its tile.

// Sums of more terms than this are cut and the parts added, so that rounding errors do not grow with the length. Even,
// so that pairs stay whole.
constexpr std::int64_t longest_sum = 512;

// body(i) for each row of a tile. The rows are constants from the start, not a loop that is unrolled late: only so does
// the compiler keep a tile in registers throughout.
template <class Body, int... i>
RC_HD void each_row(Body body, std::integer_sequence<int, i...>) {
    (body(i), ...);
}
template <int MR, class Body>
RC_HD void each_row(Body body) {
    each_row(body, std::make_integer_sequence<int, MR>());
}

template <class T, int MR>
struct Accumulators {
    Vec<Compute<T>> at[MR][2];
};

// How many elements beyond those in use what will be used next is, so that it is asked for meanwhile; 0 where it is
// known to be near. The hardware foresees neither: the next panel begins when this one was read many times, and the
// next columns of A lie in the lines of other pages.
struct Ahead {
    std::int64_t a = 0, w = 0;
};

// acc += A·W for one stretch of k. a(i, k) = a[i·row_step + k·k_step]; w(k, ·) = w[k·w_step …].
template <int MR, class T>
RC_HD void accumulate(const T* a, std::int64_t row_step, std::int64_t k_step, const T* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<T, MR>& acc, Ahead ahead) {
    for (std::int64_t k = 0; k < length; ++k) {
        if constexpr (MR >= 4) {  // fewer rows are bound by loads
            __builtin_prefetch(w + ahead.w, 0, 2);
            __builtin_prefetch(w + ahead.w + Vec<T>::lanes, 0, 2);
            __builtin_prefetch(a + ahead.a);
        }
        const Vec<T> left = Vec<T>::load(w), right = Vec<T>::load(w + Vec<T>::lanes);
        each_row<MR>([&](int i) {
            const Vec<T> x(a[i * row_step]);
            acc.at[i][0] = multiply_add(x, left, acc.at[i][0]);
            acc.at[i][1] = multiply_add(x, right, acc.at[i][1]);
        });
        a += k_step;
        w += w_step;
    }
}

// The same on pairs along k: pair p of a is at a[i·row_step + p·k_step], pairs of w at w[p·w_step …].
template <int MR>
RC_HD void accumulate_pairs(const bfloat16* a, std::int64_t row_step, std::int64_t k_step, const bfloat16* w,
                            std::int64_t w_step, std::int64_t pairs, Accumulators<bfloat16, MR>& acc,
                            Ahead ahead = {}) {
    for (std::int64_t p = 0; p < pairs; ++p) {
        if constexpr (MR >= 4) {
            __builtin_prefetch(w + ahead.w, 0, 2);
            __builtin_prefetch(w + ahead.w + 2 * word_lanes, 0, 2);
        }
        const Words left = read_pairs(w), right = read_pairs(w + 2 * word_lanes);
        each_row<MR>([&](int i) {
            const Words x = broadcast_pair(a + i * row_step);
            acc.at[i][0] = dot_add(x, left, acc.at[i][0]);
            acc.at[i][1] = dot_add(x, right, acc.at[i][1]);
        });
        a += k_step;
        w += w_step;
    }
}

// A row-major stretch of `length` k against a panel of pairs. A last single k has zeros beside it.
template <int MR>
RC_HD void accumulate(const bfloat16* a, std::int64_t row_step, std::int64_t, const bfloat16* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<bfloat16, MR>& acc, Ahead ahead) {
    accumulate_pairs<MR>(a, row_step, 2, w, 2 * w_step, length / 2, acc, ahead);
    if (length % 2 == 0) return;
    bfloat16 last[MR][2];
    for (int i = 0; i < MR; ++i) last[i][0] = a[i * row_step + length - 1], last[i][1] = bfloat16{};
    accumulate_pairs<MR>(last[0], 2, 0, w + (length - 1) * w_step, 0, 1, acc);
}

// A tile in memory: where the parts of a long sum wait, and where the epilogues that take a tile from memory find it.
template <class T, int MR>
struct StoredTile {
    static constexpr int lanes = Vec<Compute<T>>::lanes;
    alignas(64) Compute<T> at[MR][2 * lanes];

    RC_HD void keep(const Accumulators<T, MR>& tile) {
        each_row<MR>([&](int i) { tile.at[i][0].store(at[i]), tile.at[i][1].store(at[i] + lanes); });
    }
    RC_HD void add_to(Accumulators<T, MR>& tile) const {
        each_row<MR>([&](int i) {
            tile.at[i][0] = read(at[i]) + tile.at[i][0];
            tile.at[i][1] = read(at[i] + lanes) + tile.at[i][1];
        });
    }
};

// Σ_s A_s·W_s for rows [row, row + MR) and one panel of every W_s. `parts` is room for a long sum's.
template <class T, int MR>
RC_HD Accumulators<T, MR> product(const Source<T>* sources, int n, std::int64_t row, std::int64_t panel,
                                  StoredTile<T, MR>& parts) {
    constexpr std::int64_t width = 2 * Vec<Compute<T>>::lanes;
    Accumulators<T, MR> sum;
    bool in_parts = false;
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const T* a = source.rows.data + row * source.rows.stride;
        const std::int64_t panel_size = operand_rows<T>(source.inner) * width;
        const T* w = source.panels + panel * panel_size;
        const Ahead ahead{0, row == 0 ? panel_size : 0};  // the first rows fetch the next panel for all
        for (std::int64_t left = source.inner;;) {
            const std::int64_t length = left < longest_sum ? left : longest_sum;
            accumulate<MR>(a, source.rows.stride, 1, w, width, length, sum, ahead);
            left -= length;
            if (left == 0) break;
            a += length;
            w += length * width;
            if (in_parts) parts.add_to(sum);
            parts.keep(sum);
            sum = Accumulators<T, MR>();
            in_parts = true;
        }
    }
    if (in_parts) parts.add_to(sum);
    return sum;
}

// The same into memory, once per row count for everyone whose epilogue is not worth a copy of the loop.
template <class T, int MR>
__attribute__((noinline)) void product_into(StoredTile<T, MR>& tile, const Source<T>* sources, int n, std::int64_t row,
                                            std::int64_t panel) {
    tile.keep(product<T, MR>(sources, n, row, panel, tile));
}

// Epilogues that stay in registers: the two that training spends its time in. Others find the tile in L1, which costs
// a few percent of the shortest sums and saves most of the compile time and code size.
template <class T, class Activation>
constexpr bool in_registers =
    sizeof(Compute<T>) == 4 && (std::is_same<Activation, Identity>::value || std::is_same<Activation, Relu>::value);

// Calls tile<n>(first) for blocks of at most MR rows, as equal as can be: 16 rows are 8 + 8, not 14 + 2.
template <int MR, class Tile>
RC_HD void visit_block(int rows, std::int64_t first, Tile& tile) {
    if constexpr (MR >= 1) {
        if (rows == MR) return tile.template run<MR>(first);
        visit_block<MR - 1>(rows, first, tile);
    }
}
template <int MR, class Tile>
RC_HD void visit_blocks(std::int64_t rows, Tile& tile) {
    const std::int64_t blocks = (rows + MR - 1) / MR;
    for (std::int64_t b = 0, first = 0; b < blocks; ++b) {
        const std::int64_t next = rows * (b + 1) / blocks;
        visit_block<MR>(static_cast<int>(next - first), first, tile);
        first = next;
    }
}

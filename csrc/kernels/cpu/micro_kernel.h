// The micro-kernel: a register tile (register_tile.h) summed over every source before anything is written. Included
// inside the namespace of one instruction set.
//
// Invariant: an element's sum depends on its row, its column and the sources alone, never on which rows share its tile.

constexpr int vectors_of_line = RC_VECTOR_BYTES < 64 ? 64 / RC_VECTOR_BYTES : 1;

// What a kernel's call holds while it sums: nothing, where it sums in registers.
template <class T>
struct MatrixUnit {};

// How many elements beyond those in use what will be used next is, so that it is asked for meanwhile; 0 where it is
// known to be near. The hardware foresees neither: the next panel begins when this one was read many times, and the
// next columns of A lie in the lines of other pages. `asks_for_a`: not where A is read along its rows, which it
// foresees.
template <bool asks_for_a>
struct Ahead {
    std::int64_t a = 0, w = 0;
};

// acc += a(·, k)·w(k, ·) for one k. a(i) = a[i·row_step].
template <int MR, int V, class T, bool asks_for_a>
RC_HD void accumulate_one(const T* a, std::int64_t row_step, const T* w, Accumulators<T, MR, V>& acc,
                          Ahead<asks_for_a> ahead) {
    // Fewer rows are bound by loads. No lambda: a function that only prefetches is pure to the compiler, and so is
    // dropped.
    if constexpr (MR >= 4) {
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(w + ahead.w + v * Vec<T>::lanes, 0, 2);
        if constexpr (asks_for_a) __builtin_prefetch(a + ahead.a);
    }
    Vec<T> row_of_w[V];
    each_row<V>([&](int v) { row_of_w[v] = Vec<T>::load(w + v * Vec<T>::lanes); });
    each_row<MR>([&](int i) {
        const Vec<T> x(a[i * row_step]);
        each_row<V>([&](int v) { acc.at[i][v] = multiply_add(x, row_of_w[v], acc.at[i][v]); });
    });
}

// acc += A·W for one stretch of k. a(i, k) = a[i·row_step + k·k_step]; w(k, ·) = w[k·w_step …].
template <int MR, int V, class T, bool asks_for_a>
RC_HD void accumulate(const T* a, std::int64_t row_step, std::int64_t k_step, const T* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<T, MR, V>& acc, Ahead<asks_for_a> ahead) {
    // Two at once where a loop around one is much beside its products, which shows where the core has another thread's
    // work, too; of fewer rows GCC keeps the sums of two in memory.
    constexpr std::int64_t together = vectors_of_line > 1 && MR >= 4 && MR * V <= 12 ? 2 : 1;
    if constexpr (together == 2)
        for (; length >= together; length -= together) {
            accumulate_one(a, row_step, w, acc, ahead);
            accumulate_one(a + k_step, row_step, w + w_step, acc, ahead);
            a += together * k_step;
            w += together * w_step;
        }
    for (std::int64_t k = 0; k < length; ++k) {
        accumulate_one(a, row_step, w, acc, ahead);
        a += k_step;
        w += w_step;
    }
}

// The same on pairs along k: pair p of a is at a[i·row_step + p·k_step], pairs of w at w[p·w_step …].
template <int MR, int V, class T>
RC_HD void accumulate_pairs(const bfloat16* a, std::int64_t row_step, std::int64_t k_step, const bfloat16* w,
                            std::int64_t w_step, std::int64_t pairs, Accumulators<T, MR, V>& acc,
                            Ahead<false> ahead = {}) {
    for (std::int64_t p = 0; p < pairs; ++p) {
        if constexpr (MR >= 4) {
#pragma GCC unroll 2
            for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(w + ahead.w + 2 * v * word_lanes, 0, 2);
        }
        Words row_of_w[V];
        each_row<V>([&](int v) { row_of_w[v] = read_pairs(w + 2 * v * word_lanes); });
        each_row<MR>([&](int i) {
            const Words x = broadcast_pair(a + i * row_step);
            each_row<V>([&](int v) { acc.at[i][v] = dot_add(x, row_of_w[v], acc.at[i][v]); });
        });
        a += k_step;
        w += w_step;
    }
}

// A row-major stretch of `length` k against a panel of pairs. A last single k has zeros beside it.
template <int MR, int V>
RC_HD void accumulate(const bfloat16* a, std::int64_t row_step, std::int64_t, const bfloat16* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<bfloat16, MR, V>& acc, Ahead<false> ahead) {
    accumulate_pairs<MR, V>(a, row_step, 2, w, 2 * w_step, length / 2, acc, ahead);
    if (length % 2 == 0) return;
    bfloat16 last[MR][2];
    for (int i = 0; i < MR; ++i) last[i][0] = a[i * row_step + length - 1], last[i][1] = bfloat16{};
    accumulate_pairs<MR, V>(last[0], 2, 0, w + (length - 1) * w_step, 0, 1, acc);
}

// A stretch of bfloat16x2, which are pairs themselves, against both halves of W (ops.h).
template <int MR, int V>
RC_HD void accumulate(const bfloat16x2* a, std::int64_t row_step, std::int64_t k_step, const bfloat16x2* w,
                      std::int64_t w_step, std::int64_t length, Accumulators<bfloat16x2, MR, V>& acc, Ahead<false>) {
    for (int half = 0; half < 2; ++half, w += w_step)
        accumulate_pairs<MR, V>(&a->low, 2 * row_step, 2 * k_step, &w->low, 4 * w_step, length, acc);
}

// Σ_s A_s·W_s for rows [row, row + MR) and V vectors of one panel of every W_s. `parts` is room for a long sum's.
template <class T, int MR, int V>
RC_HD Accumulators<T, MR, V> product(const Source<T>* sources, int n, std::int64_t row, std::int64_t panel,
                                     StoredTile<T, MR>& parts) {
    constexpr std::int64_t width = 2 * Vec<Compute<T>>::lanes;
    Accumulators<T, MR, V> sum;
    bool in_parts = false;
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const T* a = source.rows.data + row * source.rows.stride;
        const std::int64_t panel_size = operand_rows<T>(source.inner) * width;
        const T* w = source.panels + panel * panel_size;
        const Ahead<false> ahead{0, row == 0 ? panel_size : 0};  // the first rows fetch the next panel for all
        for (std::int64_t left = source.inner;;) {
            const std::int64_t length = left < longest_sum ? left : longest_sum;
            accumulate<MR, V>(a, source.rows.stride, 1, w, width, length, sum, ahead);
            left -= length;
            if (left == 0) break;
            a += length;
            w += length * width * operand_parts<T>;
            if (in_parts) parts.add_to(sum);
            parts.keep(sum);
            sum = Accumulators<T, MR, V>();
            in_parts = true;
        }
    }
    if (in_parts) parts.add_to(sum);
    return sum;
}

// The same into memory, once per row count for everyone whose epilogue is not worth a copy of the loop.
template <class T, int MR, int V>
__attribute__((noinline)) void product_into(StoredTile<T, MR>& tile, const Source<T>* sources, int n, std::int64_t row,
                                            std::int64_t panel) {
    tile.keep(product<T, MR, V>(sources, n, row, panel, tile));
}

// One panel of the sums, a register tile at a time, each handed to the epilogue: in registers where it takes it there.
template <class T, class Epilogue>
struct PanelSums {
    const Source<T>* sources;
    int n;
    std::int64_t panel;
    PanelSplit split;
    Epilogue& epilogue;

    template <int MR>
    __attribute__((noinline)) void run(std::int64_t row) {
        StoredTile<T, MR> tile;
        if (split.vectors < 2) {
            if (split.vectors == 1) product_into<T, MR, 1>(tile, sources, n, row, panel);
        } else if constexpr (Epilogue::in_registers) {
            Accumulators<T, MR, 2> sum = product<T, MR, 2>(sources, n, row, panel, tile);
            if (epilogue.whole()) return epilogue.finish_whole(sum, row);
            tile.keep(sum);
        } else {
            product_into<T, MR, 2>(tile, sources, n, row, panel);
        }
        if constexpr (computes_itself<T>)
            if (split.tail > 0) dot_tail(tile, split, sources, n, row, epilogue.args.columns, epilogue.column);
        epilogue.finish_from_memory(tile.at[0], MR, row);
    }
};
template <class T, class Epilogue>
RC_HD void sum_panel(std::int64_t begin, std::int64_t end, const Source<T>* sources, int n, std::int64_t panel,
                     Epilogue& epilogue) {
    const PanelSplit split = split_panel<T>(
        epilogue.lanes, [&](int columns) { return computes_itself<T> && worth_dots(sources, n, columns); });
    PanelSums<T, Epilogue> sums{sources, n, panel, split, epilogue};
    visit_blocks<RC_TILE_ROWS>(begin, end, sums);
}

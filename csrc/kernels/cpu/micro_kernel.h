// The micro-kernel: a register tile (register_tile.h) summed over every source before anything is written. Included
// inside the namespace of one instruction set.
//
// Invariant: an element's sum depends on its row, its column and the sources alone, never on which rows share its tile.

// What a kernel's call holds while it sums: nothing, where it sums in registers.
template <class T>
struct MatrixUnit {};

// Rows [begin, end), which are summed for one panel after another: for `panel` now, for `next` then.
struct PanelRows {
    std::int64_t begin, end, panel, next;
};

// Wide vectors wait for memory where others do not: all rows share the asking for the next panel, which otherwise the
// first do for all (docs/performance.md has what that was worth), and ask for the memory of their results.
constexpr bool spreads_panels = RC_VECTOR_BYTES == 64;

// What rows [row, row + MR) ask for of the next panel, while they are summed for the panel `now`.
template <class T, int MR, int V>
RC_HD auto ahead_of(const T* next, const T* now, std::int64_t panel_size, std::int64_t row, const PanelRows& rows) {
    if constexpr (spreads_panels) {
        constexpr int terms = std::is_same<T, bfloat16>::value ? 2 : 1;  // of a row of W, which asks V times
        constexpr std::int64_t tile_bytes = terms * lanes_of<T> * 2 * MR * static_cast<std::int64_t>(sizeof(T));
        const std::int64_t all = rows.end - rows.begin;
        return LaterAhead{reinterpret_cast<const char*>(next + panel_size * (row - rows.begin) / all),
                          (tile_bytes / V + all - 1) / all};
    } else {
        return WeightsAhead{row == rows.begin ? next - now : 0};
    }
}

// Σ_s A_s·W_s for rows [row, row + MR) and V vectors of one panel of every W_s. `parts` is room for a long sum's.
template <class T, int MR, int V>
RC_HD Accumulators<T, MR, V> product(const Source<T>* sources, int n, std::int64_t row, const PanelRows& rows,
                                     StoredTile<T, MR>& parts) {
    constexpr std::int64_t width = 2 * Vec<Compute<T>>::lanes;
    Accumulators<T, MR, V> sum;
    bool in_parts = false;
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const T* a = source.rows.data + row * source.rows.stride;
        const std::int64_t panel_size = operand_rows<T>(source.inner) * width;
        const T* w = source.panels + rows.panel * panel_size;
        auto ahead = ahead_of<T, MR, V>(source.panels + rows.next * panel_size, w, panel_size, row, rows);
        for (std::int64_t left = source.inner;;) {
            const std::int64_t length = left < longest_sum ? left : longest_sum;
            accumulate<MR, V>(RowsApart<T, MR>(a, source.rows.stride), w, width, length, sum, ahead);
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
                                            const PanelRows& rows) {
    tile.keep(product<T, MR, V>(sources, n, row, rows, *opaque(&tile)));
}

template <class T>
RC_HD std::int64_t terms_of(const Source<T>* sources, int n) {
    std::int64_t terms = 0;
    for (int s = 0; s < n; ++s) terms += sources[s].inner;
    return terms;
}

// One panel of the sums, a register tile at a time, each handed to the epilogue: in registers where it takes it there.
template <class T, class Epilogue>
struct PanelSums {
    const Source<T>* sources;
    int n;
    PanelRows rows;
    PanelSplit split;
    Epilogue& epilogue;
    // Results of all but the narrowest layers may have gone to the last cache meanwhile, and their sums leave the time
    // for it.
    static constexpr std::int64_t worth_asking = 256 / sizeof(T);
    const bool asks_for_results = spreads_panels && terms_of(sources, n) >= worth_asking && epilogue.args.out.data;

    template <int MR>
    RC_HD void ask_for_results(std::int64_t row) const {
        const auto out = epilogue.args.out;
        constexpr std::int64_t line = 64 / sizeof *out.data;
        for (int i = 0; i < MR; ++i)
            for (std::int64_t j = 0; j < 2 * lanes_of<T>; j += line)
                __builtin_prefetch(out.data + (row + i) * out.stride + epilogue.column + j, 0, 2);
    }
    template <int MR>
    __attribute__((noinline)) void run(std::int64_t row) {
        StoredTile<T, MR> tile;
        if (asks_for_results) ask_for_results<MR>(row);
        if (split.vectors < 2) {
            if (split.vectors == 1) product_into<T, MR, 1>(tile, sources, n, row, rows);
        } else if constexpr (Epilogue::in_registers && !std::is_same<T, bfloat16x2>::value) {
            // Opaque: the compiler would else copy what is not yet there of the tile, for every product. (Of bfloat16x2
            // it keeps the sums in memory throughout, from ten rows on: GCC 12.)
            Accumulators<T, MR, 2> sum = product<T, MR, 2>(sources, n, row, rows, *opaque(&tile));
            if (epilogue.whole()) return epilogue.finish_rows(sum, row);
            tile.keep(sum);
        } else {
            product_into<T, MR, 2>(tile, sources, n, row, rows);
        }
        if constexpr (takes_tails<T>)
            if (split.tail > 0) dot_tail(tile, split, sources, n, row, epilogue.args.columns, epilogue.column);
        epilogue.finish_from_memory(tile.at[0], MR, row);
    }
};
template <class T, class Epilogue>
RC_HD void sum_panel(const PanelRows& rows, const Source<T>* sources, int n, Epilogue& epilogue) {
    const PanelSplit split = split_panel<T>(epilogue.lanes, [&](int columns) {
        if constexpr (takes_tails<T>) return worth_dots(sources, n, columns);
        return false;
    });
    PanelSums<T, Epilogue> sums{sources, n, rows, split, epilogue};
    visit_blocks<RC_TILE_ROWS>(rows.begin, rows.end, sums);
}

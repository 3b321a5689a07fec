// The micro-kernel: a register tile (register_tile.h) summed over every source before anything is written. Included
// inside the namespace of one instruction set.
//
// Invariant: an element's sum depends on its row, its column and the sources alone, never on which rows share its tile.

// What a kernel's call holds while it sums: nothing, where it sums in registers.
template <class T>
struct MatrixUnit {};

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

// A tile of sums: MR rows × V vectors of columns in registers, or in memory. V is two, a panel's width, or one where
// the last panel has no more columns. Included inside the namespace of one instruction set.

// body(i) for each row of a tile. The rows are constants from the start, not a loop that is unrolled late: only so does
// the compiler keep a tile in registers throughout.
template <class Body, int... i>
RC_HD void each_row([[maybe_unused]] Body body, std::integer_sequence<int, i...>) {
    (body(i), ...);
}
template <int MR, class Body>
RC_HD void each_row(Body body) {
    each_row(body, std::make_integer_sequence<int, MR>());
}
// For lambdas of a loop that takes two k at once: the tile that they refer to stays in registers only where they are
// inlined before GCC looks which variables may.
#define RC_INLINED __attribute__((always_inline))

template <class T, int MR, int V>
struct Accumulators {
    Vec<Compute<T>> at[MR][V];
};

// Rows of a tile, each as wide as a panel, to memory that is their own (`first`) or has sums already. Columns that do
// not exist are zeros, unless someone else writes them (`alone`).
template <class T, int MR, int V>
RC_HD void into_memory(Accumulators<T, MR, V>& tile, Compute<T>* to, bool first, bool alone = true) {
    constexpr int lanes = lanes_of<T>;
    each_row<MR>([&](int i) {
        Compute<T>* row = to + i * 2 * lanes;
        each_row<V>([&](int v) {
            if (!first) tile.at[i][v] = read(row + v * lanes) + tile.at[i][v];
            tile.at[i][v].store(row + v * lanes);
        });
        if (V == 1 && first && alone) Vec<Compute<T>>().store(row + lanes);
    });
}

// A tile in memory: where the parts of a long sum wait, and where the epilogues that take a tile from memory find it.
template <class T, int MR>
struct StoredTile {
    static constexpr int lanes = Vec<Compute<T>>::lanes;
    alignas(64) Compute<T> at[MR][2 * lanes];

    template <int V>
    RC_HD void keep(const Accumulators<T, MR, V>& tile) {
        each_row<MR>([&](int i) { each_row<V>([&](int v) { tile.at[i][v].store(at[i] + v * lanes); }); });
    }
    template <int V>
    RC_HD void add_to(Accumulators<T, MR, V>& tile) const {
        each_row<MR>(
            [&](int i) { each_row<V>([&](int v) { tile.at[i][v] = read(at[i] + v * lanes) + tile.at[i][v]; }); });
    }
    // Rows [first, first + R), in registers: made of their numbers at once, as a tile of zeros first would be cleared
    // in a loop, by address, and stay in memory.
    template <int R>
    RC_HD Accumulators<T, R, 2> rows(std::int64_t first) const {
        return rows(first, std::make_integer_sequence<int, R>());
    }

private:
    template <int... i>
    RC_HD Accumulators<T, sizeof...(i), 2> rows(std::int64_t first, std::integer_sequence<int, i...>) const {
        return {{{read(at[first + i]), read(at[first + i] + lanes)}...}};
    }
};

// Calls tile<n>(first) for blocks of at most MR rows, as equal as can be: 16 rows are 8 + 8, not 14 + 2.
template <int MR, class Tile>
RC_HD void visit_block(int rows, std::int64_t first, Tile& tile) {
    if constexpr (MR >= 1) {
        if (rows == MR) return tile.template run<MR>(first);
        visit_block<MR - 1>(rows, first, tile);
    }
}
template <int MR, class Tile>
RC_HD void visit_blocks(std::int64_t begin, std::int64_t end, Tile& tile) {
    const std::int64_t rows = end - begin, blocks = (rows + MR - 1) / MR;
    for (std::int64_t b = 0, first = begin; b < blocks; ++b) {
        const std::int64_t next = begin + rows * (b + 1) / blocks;
        visit_block<MR>(static_cast<int>(next - first), first, tile);
        first = next;
    }
}

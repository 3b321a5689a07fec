// The last columns of a panel where they fill little of a vector: a register tile is a whole vector wide, and would
// multiply mostly zeros. A product sums such a column along k, a vector of k at a time; a weight gradient's column is
// summed for a vector of W's rows at a time. Included inside the namespace of one instruction set.
//
// Invariant: which columns are summed this way depends on the shapes alone, never on how many rows a call is given.

// A panel's columns: register tiles sum the first `vectors`, and the `tail` columns after them are summed here.
struct PanelSplit {
    int vectors = 2, tail = 0;
};
// lanes: columns that exist in each of the panel's vectors. worth(n): whether n columns are better off here.
template <class T, class Worth>
RC_HD PanelSplit split_panel(const int (&lanes)[2], Worth worth) {
    const int last = lanes[1] > 0 ? 1 : 0;
    if (lanes[last] < lanes_of<T> && worth(lanes[last])) return {last, lanes[last]};
    return {last + 1, 0};
}

// Sums of more terms than this are cut and the parts added, so that rounding errors do not grow with the length. Even,
// so that pairs stay whole.
constexpr std::int64_t longest_sum = 512;

// For as many rows as a vector has lanes, a column costs a load for every vector of k, and about as many as six more
// until each sum is in one place; a register tile costs what as many columns as there are lanes would. A lane adds
// every lanes-th term, so that a sum may be that much longer than a register tile's.
template <class T>
RC_HD bool worth_dots(const Source<T>* sources, int n, int columns) {
    constexpr std::int64_t lanes = lanes_of<T>, gathering = 6;
    std::int64_t vectors = 0;
    for (int s = 0; s < n; ++s) {
        if (!sources[s].across || sources[s].inner > longest_sum * lanes) return false;
        vectors += (sources[s].inner + lanes - 1) / lanes;
    }
    return columns * (vectors + gathering) < lanes * vectors;
}

// Lane i of the result is the sum of the lanes of x[i]: `transpose`, adding what it exchanges.
template <class T, int step = 1, int n>
RC_HD Vec<T> sums_of_lanes(const Vec<T> (&x)[n]) {
    if constexpr (n == 1) {
        return x[0];
    } else {
        constexpr auto all = std::make_integer_sequence<int, Vec<T>::lanes>();
        Vec<T> half[n / 2];
        each_row<n / 2>([&](int i) {
            half[i].v = exchange<step, false>(x[2 * i].v, x[2 * i + 1].v, all) +
                        exchange<step, true>(x[2 * i].v, x[2 * i + 1].v, all);
        });
        return sums_of_lanes<T, 2 * step>(half);
    }
}

// Σ_s A_s·W_s for R rows and one column, one sum to a lane.
template <int R, class T>
RC_HD Vec<T> dot_rows(const Source<T>* sources, int n, std::int64_t row, std::int64_t columns, std::int64_t column) {
    constexpr int lanes = Vec<T>::lanes, width = 2 * lanes;
    Vec<T> sums[lanes];
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const std::int64_t stride = source.rows.stride;
        const T* a = source.rows.data + row * stride;
        const T* w = source.across + column * width;
        for (std::int64_t k = 0; k < source.inner; k += lanes) {
            const Vec<T> along = read(w + k / width * columns * width + k % width);
            const std::int64_t left = source.inner - k;
            if (left >= lanes)
                each_row<R>([&](int i) { sums[i] = multiply_add(read(a + i * stride + k), along, sums[i]); });
            else
                each_row<R>([&](int i) {
                    sums[i] = multiply_add(read(a + i * stride + k, static_cast<int>(left)), along, sums[i]);
                });
        }
    }
    return sums_of_lanes(sums);
}

// The tail of MR rows of sums, into its place in a tile; zeros beyond it.
template <class T, int MR, int first = 0>
__attribute__((noinline)) void dot_tail(StoredTile<T, MR>& tile, PanelSplit split, const Source<T>* sources, int n,
                                        std::int64_t row, std::int64_t columns, std::int64_t column) {
    constexpr int lanes = Vec<T>::lanes, rows = MR - first < lanes ? MR - first : lanes;
    const int at = split.vectors * lanes;
    each_row<rows>([&](int i) { Vec<T>().store(tile.at[first + i] + at); });
    for (int j = 0; j < split.tail; ++j) {
        T sums[lanes];
        dot_rows<rows>(sources, n, row + first, columns, column + at + j).store(sums);
        each_row<rows>([&](int i) { tile.at[first + i][at + j] = sums[i]; });
    }
    if constexpr (first + rows < MR) dot_tail<T, MR, first + rows>(tile, split, sources, n, row, columns, column);
}

// A weight gradient's tail over a stretch of rows: `a` begins at the stretch, `delta` also at the tail's first column,
// and `sum` at the tail's first column of the panel's share.
template <class T>
struct TailShare {
    Rows<T> a, delta;
    std::int64_t rows;
    T* sum;
    bool first;

    // Tails as wide as this leave registers for two vectors of W's rows.
    static constexpr int widest = Vec<T>::lanes * 3 / 4;

    // V vectors of W's rows from k on, of which n rows exist in the last.
    template <int MR, int V>
    __attribute__((noinline)) void add(std::int64_t k, int n) const {
        constexpr int lanes = Vec<T>::lanes;
        Vec<T> share[V][lanes];
        const T *from = a.data + k, *d = delta.data;
        for (std::int64_t row = 0; row < rows; ++row, from += a.stride, d += delta.stride) {
            Vec<T> x[V];
            each_row<V - 1>([&](int v) { x[v] = read(from + v * lanes); });
            x[V - 1] = read(from + (V - 1) * lanes, n);
            each_row<MR>([&](int j) {
                const Vec<T> wide(d[j]);
                each_row<V>([&](int v) { share[v][j] = multiply_add(wide, x[v], share[v][j]); });
            });
        }
        each_row<V>([&](int v) {
            transpose<T>(share[v]);
            T* to = sum + (k + v * lanes) * 2 * lanes;
            const int last = v == V - 1 ? n : lanes;
            for (int i = 0; i < last; ++i, to += 2 * lanes) (first ? share[v][i] : read(to) + share[v][i]).store(to);
        });
    }
    template <int MR>
    __attribute__((noinline)) void run(std::int64_t inner) const {
        constexpr int lanes = Vec<T>::lanes;
        Blocks<MR> blocks{*this, inner};
        visit_blocks<Blocks<MR>::most>(0, (inner + lanes - 1) / lanes, blocks);
    }

private:
    // Few columns are few sums, each of which waits for the last: then more vectors at a time.
    template <int MR>
    struct Blocks {
        static constexpr int most = MR <= 3 ? 6 : 2;
        const TailShare& tail;
        std::int64_t inner;

        template <int V>
        RC_HD void run(std::int64_t vector) {
            constexpr std::int64_t lanes = Vec<T>::lanes;
            const std::int64_t left = inner - (vector + V - 1) * lanes;
            tail.add<MR, V>(vector * lanes, static_cast<int>(left < lanes ? left : lanes));
        }
    };
};

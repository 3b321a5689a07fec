// The last columns of a panel where they fill little of a vector: a register tile is a whole vector wide, and would
// multiply mostly zeros. A product sums such a column along k, a vector of k at a time; a weight gradient's column is
// summed for a vector of W's rows at a time. Included inside the namespace of one instruction set.
//
// Invariant: which columns are summed this way depends on the shapes alone, never on how many rows a call is given.

// What is multiplied as it is stored: numbers, or pairs of bfloat16.
#if defined(RC_WIDENS)
template <class T>
constexpr bool takes_tails = computes_itself<T>;
#else
template <class T>
constexpr bool takes_tails = !std::is_same<T, bfloat16x2>::value;
#endif

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

// Numbers of k in a vector along it.
template <class T>
constexpr std::int64_t terms_of_vector = lanes_of<T> * (computes_itself<T> ? 1 : 2);

// For as many rows as a vector has lanes, a column costs a load for every vector of k, and about as many as six more
// until each sum is in one place; a register tile costs what as many columns as there are lanes would. A lane adds
// every lanes-th term, so that a sum may be that much longer than a register tile's.
template <class T>
RC_HD bool worth_dots(const Source<T>* sources, int n, int columns) {
    constexpr std::int64_t lanes = lanes_of<T>, terms = terms_of_vector<T>, gathering = 6;
    std::int64_t vectors = 0;
    for (int s = 0; s < n; ++s) {
        if (!sources[s].across || sources[s].inner > longest_sum * lanes) return false;
        vectors += (sources[s].inner + terms - 1) / terms;
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

// Of a packed Wᵀ, whose rows are W's `columns`: a vector of one of them from k on, a multiple of what a vector has; and
// what it is multiplied by, of a row of A of which n numbers are left.
template <class T>
struct Along {
    using Terms = Vec<T>;
    static RC_HD Terms column(const T* across, std::int64_t columns, std::int64_t column, std::int64_t k) {
        constexpr std::int64_t width = 2 * lanes_of<T>;
        return read(across + (k / width * columns + column) * width + k % width);
    }
    static RC_HD Terms row(const T* a) { return read(a); }
    static RC_HD Terms row(const T* a, int n) { return read(a, n); }
    static RC_HD Vec<T> multiply_add(Terms a, Terms w, Vec<T> sum) { return RC_ISA::multiply_add(a, w, sum); }
};
#if !defined(RC_WIDENS)
template <>
struct Along<bfloat16> {
    using Terms = Words;
    // Columns lie in pairs there: two vectors have every k of both.
    static RC_HD Terms column(const bfloat16* across, std::int64_t columns, std::int64_t column, std::int64_t k) {
        constexpr std::int64_t width = 2 * word_lanes;
        const bfloat16* const pairs = across + (k / width * operand_rows<bfloat16>(columns) + column / 2 * 2) * width;
        return every_second(read_pairs(pairs), read_pairs(pairs + width), column % 2);
    }
    static RC_HD Terms row(const bfloat16* a) { return read_pairs(a); }
    static RC_HD Terms row(const bfloat16* a, int n) { return read_pairs(a, n); }
    static RC_HD Vec<float> multiply_add(Terms a, Terms w, Vec<float> sum) { return dot_add(a, w, sum); }
};
#endif

// Σ_s A_s·W_s for R rows and one column, one sum to a lane.
template <int R, class T>
RC_HD Vec<Compute<T>> dot_rows(const Source<T>* sources, int n, std::int64_t row, std::int64_t columns,
                               std::int64_t column) {
    constexpr std::int64_t terms = terms_of_vector<T>;
    Vec<Compute<T>> sums[lanes_of<T>];
    for (int s = 0; s < n; ++s) {
        const Source<T>& source = sources[s];
        const std::int64_t stride = source.rows.stride;
        const T* a = source.rows.data + row * stride;
        for (std::int64_t k = 0; k < source.inner; k += terms) {
            const auto along = Along<T>::column(source.across, columns, column, k);
            const std::int64_t left = source.inner - k;
            if (left >= terms)
                each_row<R>([&](int i) {
                    sums[i] = Along<T>::multiply_add(Along<T>::row(a + i * stride + k), along, sums[i]);
                });
            else
                each_row<R>([&](int i) {
                    sums[i] = Along<T>::multiply_add(Along<T>::row(a + i * stride + k, static_cast<int>(left)), along,
                                                     sums[i]);
                });
        }
    }
    return sums_of_lanes(sums);
}

// The tail of MR rows of sums, into its place in a tile; zeros beyond it.
template <class T, int MR, int first = 0>
__attribute__((noinline)) void dot_tail(StoredTile<T, MR>& tile, PanelSplit split, const Source<T>* sources, int n,
                                        std::int64_t row, std::int64_t columns, std::int64_t column) {
    constexpr int lanes = lanes_of<T>, rows = MR - first < lanes ? MR - first : lanes;
    const int at = split.vectors * lanes;
    each_row<rows>([&](int i) { Vec<Compute<T>>().store(tile.at[first + i] + at); });
    for (int j = 0; j < split.tail; ++j) {
        Compute<T> sums[lanes];
        dot_rows<rows>(sources, n, row + first, columns, column + at + j).store(sums);
        each_row<rows>([&](int i) { tile.at[first + i][at + j] = sums[i]; });
    }
    if constexpr (first + rows < MR) dot_tail<T, MR, first + rows>(tile, split, sources, n, row, columns, column);
}

// A weight gradient's tail over a stretch of rows, or of pairs of them: `a` begins at the stretch, `delta` also at the
// tail's first column, and `sum` at the tail's first column of the panel's share.
template <class T>
struct TailShare {
    using C = Compute<T>;

    Rows<T> a, delta;
    std::int64_t rows;
    C* sum;
    bool first;

    // Tails as wide as this leave registers for two vectors of W's rows.
    static constexpr int lanes = lanes_of<T>, widest = lanes * 3 / 4;

    // V vectors of W's rows from k on, of which n rows exist in the last.
    template <int MR, int V>
    __attribute__((noinline)) void add(std::int64_t k, int n) const {
        Vec<C> share[V][lanes];
        const T *from = a.data + k * together, *d = delta.data;
        for (std::int64_t row = 0; row < rows; ++row, from += a.stride, d += delta.stride) {
            typename Along<T>::Terms x[V];
            each_row<V - 1>([&](int v) { x[v] = Along<T>::row(from + v * lanes * together); });
            x[V - 1] = Along<T>::row(from + (V - 1) * lanes * together, n * together);
            each_row<MR>([&](int j) {
                const auto wide = everywhere(d + j * together);
                each_row<V>([&](int v) { share[v][j] = Along<T>::multiply_add(wide, x[v], share[v][j]); });
            });
        }
        each_row<V>([&](int v) {
            transpose<C>(share[v]);
            C* to = sum + (k + v * lanes) * 2 * lanes;
            const int last = v == V - 1 ? n : lanes;
            for (int i = 0; i < last; ++i, to += 2 * lanes) (first ? share[v][i] : read(to) + share[v][i]).store(to);
        });
    }
    template <int MR>
    __attribute__((noinline)) void run(std::int64_t inner) const {
        Blocks<MR> blocks{*this, inner};
        visit_blocks<Blocks<MR>::most>(0, (inner + lanes - 1) / lanes, blocks);
    }

private:
    static constexpr int together = computes_itself<T> ? 1 : 2;

    static RC_HD auto everywhere(const T* term) {
        if constexpr (computes_itself<T>)
            return Vec<T>(*term);
        else
            return broadcast_pair(term);
    }

    // Few columns are few sums, each of which waits for the last: then more vectors at a time.
    template <int MR>
    struct Blocks {
        static constexpr int most = MR <= 3 ? 6 : 2;
        const TailShare& tail;
        std::int64_t inner;

        template <int V>
        RC_HD void run(std::int64_t vector) {
            const std::int64_t left = inner - (vector + V - 1) * lanes;
            tail.template add<MR, V>(vector * lanes, static_cast<int>(left < lanes ? left : lanes));
        }
    };
};

// Which columns of a panel of a weight gradient are a tail, whose every vector has `columns` of them.
template <class T>
RC_HD PanelSplit split_gradient(const int (&columns)[2]) {
    return split_panel<T>(columns, [](int some) { return some <= TailShare<T>::widest; });
}
// The tail's columns of all rows of W, and zeros in the vector beside it where that has none. `tail` has those of the
// panel: δ from its first column on, and the panel's share.
template <class T>
RC_HD void add_tail(PanelSplit split, TailShare<T> tail, std::int64_t inner) {
    constexpr int lanes = lanes_of<T>;
    const int at = split.vectors * lanes;
    for (std::int64_t k = 0; k < inner && tail.first && at == 0; ++k)
        Vec<Compute<T>>().store(tail.sum + (2 * k + 1) * lanes);
    tail.delta.data += at * (computes_itself<T> ? 1 : 2);
    tail.sum += at;
    visit_block<TailShare<T>::widest>(split.tail, inner, tail);
}

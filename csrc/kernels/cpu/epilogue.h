// What forward and backward-data have in common: sums of a panel, and then an epilogue on a tile of them. Included
// inside an ISA's namespace.
//
// Invariant: whether a tile is finished in registers or from memory is decided by its columns, never by its rows.

// Asks for `vectors` vectors of row i from column j on, which may have gone to memory since they were written. Of the
// tile's own rows alone: another thread's are in its cache, and would be taken from there.
template <class T>
RC_HD void ask_for(Rows<T> from, std::int64_t i, std::int64_t rows, std::int64_t j, int vectors) {
    constexpr std::int64_t line = 64 / sizeof(T);
    if (i >= rows) return;
    for (std::int64_t at = j; at < j + vectors * lanes_of<T>; at += line)
        __builtin_prefetch(from.data + i * from.stride + at);
}

// A panel's columns, and the loops over a tile. `Formulas`, which derives from this, has the arithmetic twice: over
// rows in registers (finish_rows), where a question is asked once for a tile, and for one vector (finish), to which
// `bias` was added.
template <class T, class Activation, class Args, class Formulas>
struct Epilogue {
    // Epilogues that stay in registers: the two that training spends its time in. Others find the tile in L1, which
    // costs a few percent of the shortest sums and saves most of the compile time and code size.
    static constexpr bool in_registers =
        sizeof(Compute<T>) == 4 && (std::is_same<Activation, Identity>::value || std::is_same<Activation, Relu>::value);

    const Args& args;
    std::int64_t column;  // first column of the vector pair
    int lanes[2];         // columns that exist in each of its vectors

    RC_HD bool whole() const { return lanes[1] == lanes_of<T>; }
    RC_HD int columns() const { return lanes[0] + (lanes[1] > 0 ? lanes[1] : 0); }

    // Anything else: a panel that the columns end in, and the activations that are long themselves.
    __attribute__((noinline)) void finish_from_memory(const Compute<T>* sum, int rows, std::int64_t row) {
        if constexpr (in_registers) {
            if (lanes[1] > 0)
                finish_some(sum, rows, row, SomeColumns<2>{FirstLanes(lanes[1])});
            else
                finish_some(sum, rows, row, SomeColumns<1>{FirstLanes(lanes[0])});
        } else {
            for (int half = 0; half < 2; ++half) {
                if (lanes[half] <= 0) return;
                const std::int64_t j = column + half * lanes_of<T>;
                const Vec<Compute<T>> bias = formulas().bias(j, lanes[half]);
                for (int i = 0; i < rows; ++i)
                    formulas().finish(read(sum + (2 * i + half) * lanes_of<T>) + bias, row + i, j, lanes[half]);
            }
        }
    }

protected:
    template <int MR, class Columns>
    RC_HD void add_rows(Accumulators<T, MR, 2>& sum, Rows<T> rows, std::int64_t row, Columns columns) const {
        const T* const from = rows.data + row * rows.stride + column;
        each_row<MR>([&](int i) {
            const Both<Compute<T>> x = read_both(from + i * rows.stride, columns);
            sum.at[i][0] = sum.at[i][0] + x.low;
            sum.at[i][1] = sum.at[i][1] + x.high;
        });
    }
    template <int MR, class Columns>
    RC_HD void multiply_rows(Accumulators<T, MR, 2>& product, Rows<Compute<T>> rows, std::int64_t row,
                             Columns columns) const {
        const Compute<T>* const from = rows.data + row * rows.stride + column;
        each_row<MR>([&](int i) {
            const Both<Compute<T>> x = read_both(from + i * rows.stride, columns);
            product.at[i][0] = product.at[i][0] * x.low;
            product.at[i][1] = product.at[i][1] * x.high;
        });
    }
    // `to` is a copy: what is written could be the arguments, for all the compiler knows, which so reads them again.
    template <class Out, int MR, class Columns>
    RC_HD void write_rows(const Accumulators<T, MR, 2>& x, MutableRows<Out> to, std::int64_t row,
                          Columns columns) const {
        Out* const first = to.data + row * to.stride + column;
        each_row<MR>([&](int i) { write_both({x.at[i][0], x.at[i][1]}, first + i * to.stride, columns); });
    }

private:
    // A few rows in registers at a time.
    template <class Columns>
    RC_HD void finish_some(const Compute<T>* sum, int rows, std::int64_t row, Columns columns) {
        constexpr int few = 4;
        int i = 0;
        for (; i + few <= rows; i += few) finish_few<few>(sum, i, row, columns);
        for (; i < rows; ++i) finish_few<1>(sum, i, row, columns);
    }
    template <int MR, class Columns>
    RC_HD void finish_few(const Compute<T>* sum, int first, std::int64_t row, Columns columns) {
        Accumulators<T, MR, 2> some;
        each_row<MR>([&](int i) {
            each_row<Columns::vectors>([&](int v) { some.at[i][v] = read(sum + (2 * (first + i) + v) * lanes_of<T>); });
        });
        formulas().template finish_rows<MR>(some, row + first, columns);
    }
    RC_HD Formulas& formulas() { return static_cast<Formulas&>(*this); }
};

// The epilogue of one panel.
template <class T, class Formulas, class Args>
RC_HD Formulas epilogue_of(const Args& args, std::int64_t panel) {
    constexpr int lanes = lanes_of<T>;
    const std::int64_t column = panel * 2 * lanes;
    Formulas epilogue{{args, column, {0, 0}}};
    for (int half = 0; half < 2; ++half) {
        const std::int64_t left = args.columns - column - half * lanes;
        epilogue.lanes[half] = left > lanes ? lanes : static_cast<int>(left);
    }
    return epilogue;
}

// So many rows are summed for all panels before the next ones. Without a product there is nothing but memory, which is
// read fastest row by row. Wide vectors are done with a panel faster than A comes from the last cache: then only as
// many rows, in whole tiles, as the second-level cache of most processors with AVX-512 holds beside a panel or two.
template <class T>
RC_HD std::int64_t rows_at_once(const Source<T>* sources, int n, std::int64_t rows) {
    if (n == 0) return 8;
    if (RC_VECTOR_BYTES < 64) return rows;
    constexpr std::int64_t bytes = 512 << 10, fewest = 8 * RC_TILE_ROWS;
    const std::int64_t row_bytes = terms_of(sources, n) * static_cast<std::int64_t>(sizeof(T));
    if (row_bytes * rows <= bytes) return rows;
    const std::int64_t most = row_bytes * fewest < bytes ? bytes / row_bytes : fewest,
                       blocks = (rows + most - 1) / most;
    const std::int64_t tiles = (rows + blocks * RC_TILE_ROWS - 1) / (blocks * RC_TILE_ROWS);
    return tiles * RC_TILE_ROWS;
}

template <class T>
struct PanelLoop {
    template <class Formulas, class Args>
    static RC_HD void run(const Args& args, std::int64_t first, std::int64_t last) {
        [[maybe_unused]] const MatrixUnit<T> unit{};
        const std::int64_t some_rows = rows_at_once<T>(args.sources, args.n_sources, args.rows);
        for (std::int64_t row = 0; row < args.rows; row += some_rows)
            for (std::int64_t panel = first; panel < last; ++panel) {
                Formulas epilogue = epilogue_of<T, Formulas>(args, panel);
                const std::int64_t end = row + some_rows < args.rows ? row + some_rows : args.rows;
                sum_panel({row, end, panel, panel + 1 < last ? panel + 1 : first}, args.sources, args.n_sources,
                          epilogue);
            }
    }
};

// Panels [first, last), or up to the last that there is.
template <class T, class Formulas, class Args>
RC_HD void sum_panels(const Args& args, std::int64_t first, std::int64_t last) {
    const std::int64_t all = panel_count(args.columns, 2 * lanes_of<T>);
    PanelLoop<T>::template run<Formulas>(args, first, last < all ? last : all);
}

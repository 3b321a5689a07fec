// residual_forward: the product of micro_kernel.h, then one epilogue in registers. Included inside an ISA's namespace.

template <class T, class Activation>
struct ForwardTile {
    const ForwardArgs<T>& args;
    std::int64_t panel, column;  // first column of the vector pair
    int lanes[2];                // columns that exist in each of its vectors

    template <int MR>
    __attribute__((noinline)) void run(std::int64_t row) {
        StoredTile<T, MR> tile;
        if constexpr (in_registers<T, Activation>) {
            Accumulators<T, MR> sum = product<T, MR>(args.sources, args.n_sources, row, panel, tile);
            if (lanes[1] == lanes_of<T>) return finish_whole<MR>(sum, row);
            tile.keep(sum);
        } else {
            product_into<T, MR>(tile, args.sources, args.n_sources, row, panel);
        }
        finish_from_memory(tile.at[0], MR, row);
    }

    // Whole vectors, every row in a register: a question is asked once for a tile, not once for a vector.
    template <int MR>
    RC_HD void finish_whole(Accumulators<T, MR>& z, std::int64_t row) {
        finish_half<MR, 0>(z, row);
        finish_half<MR, 1>(z, row);
    }
    template <int MR, int half>
    RC_HD void finish_half(Accumulators<T, MR>& z, std::int64_t row) {
        const std::int64_t j = column + half * lanes_of<T>;
        if (args.bias) {
            const Vec<Compute<T>> bias = read(args.bias + j);
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + bias; });
        }
        for (int s = 0; s < args.n_identity; ++s) {
            const T* from = args.identity[s].data + row * args.identity[s].stride + j;
            const std::int64_t stride = args.identity[s].stride;
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + read(from + i * stride); });
        }
        if (args.branch.z.data)
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + branch(row + i, j, lanes_of<T>); });
        if (args.argument.data)
            each_row<MR>(
                [&](int i) { write(z.at[i][half], args.argument.data + (row + i) * args.argument.stride + j); });
        each_row<MR>([&](int i) { z.at[i][half] = Activation::forward(z.at[i][half]); });
        if (args.mask.data)
            each_row<MR>([&](int i) {
                z.at[i][half] = z.at[i][half] * read(args.mask.data + (row + i) * args.mask.stride + j);
            });
        if (computes_itself<T> || args.out.data)
            each_row<MR>([&](int i) { write(z.at[i][half], args.out.data + (row + i) * args.out.stride + j); });
        if (!computes_itself<T> && args.wide.data)
            each_row<MR>([&](int i) { write(z.at[i][half], args.wide.data + (row + i) * args.wide.stride + j); });
    }

    // Anything else: partial vectors, and the activations that are long themselves.
    __attribute__((noinline)) void finish_from_memory(const Compute<T>* sum, int rows, std::int64_t row) {
        for (int half = 0; half < 2; ++half) {
            if (lanes[half] <= 0) return;
            const std::int64_t j = column + half * lanes_of<T>;
            const Vec<Compute<T>> bias = args.bias ? read(args.bias + j, lanes[half]) : Vec<Compute<T>>();
            for (int i = 0; i < rows; ++i)
                finish(read(sum + (2 * i + half) * lanes_of<T>) + bias, row + i, j, lanes[half]);
        }
    }

    RC_HD void finish(Vec<Compute<T>> z, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            z = z + read(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.branch.z.data) z = z + branch(i, j, n);
        if (args.argument.data) write(z, args.argument.data + i * args.argument.stride + j, n);
        Vec<Compute<T>> a = Activation::forward(z);
        if (args.mask.data) a = a * read(args.mask.data + i * args.mask.stride + j, n);
        if (computes_itself<T> || args.out.data) write(a, args.out.data + i * args.out.stride + j, n);
        if (!computes_itself<T> && args.wide.data) write(a, args.wide.data + i * args.wide.stride + j, n);
    }

    RC_HD Vec<Compute<T>> branch(std::int64_t i, std::int64_t j, int n) {
        const Branch<T>& b = args.branch;
        Vec<Compute<T>> z = read(b.z.data + i * b.z.stride + j, n);
        if (b.center) z = multiply_add(z - read(b.center + j, n), read(b.scale + j, n), read(b.shift + j, n));
        if (b.mask.data) z = z * read(b.mask.data + i * b.mask.stride + j, n);
        return z;
    }
};

template <class T, class Make>
RC_HD void visit_tiles(std::int64_t rows, std::int64_t columns, Make make) {
    constexpr int lanes = lanes_of<T>;
    for (std::int64_t panel = 0; panel * 2 * lanes < columns; ++panel) {
        const std::int64_t column = panel * 2 * lanes;
        auto tile = make(panel, column);
        for (int half = 0; half < 2; ++half) {
            const std::int64_t left = columns - column - half * lanes;
            tile.lanes[half] = left > lanes ? lanes : static_cast<int>(left);
        }
        visit_blocks<RC_TILE_ROWS>(rows, tile);
    }
}

// Without a product there is nothing but memory: a few rows at a time, all of their columns.
template <class T, class Make>
RC_HD void visit_rows(std::int64_t rows, std::int64_t columns, Make make) {
    for (std::int64_t row = 0; row < rows; row += 4) {
        const int some = rows - row < 4 ? static_cast<int>(rows - row) : 4;
        for (std::int64_t panel = 0; panel * 2 * lanes_of<T> < columns; ++panel) {
            auto tile = make(panel, panel * 2 * lanes_of<T>);
            for (int half = 0; half < 2; ++half) {
                const std::int64_t left = columns - (2 * panel + half) * lanes_of<T>;
                tile.lanes[half] = left > lanes_of<T> ? lanes_of<T> : static_cast<int>(left);
            }
            visit_block<4>(some, row, tile);
        }
    }
}

template <class T>
void forward(const ForwardArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto g) {
        using Tile = ForwardTile<T, decltype(g)>;
        auto make = [&](std::int64_t panel, std::int64_t column) { return Tile{args, panel, column, {0, 0}}; };
        if (args.n_sources == 0) return visit_rows<T>(args.rows, args.columns, make);
        visit_tiles<T>(args.rows, args.columns, make);
    });
}

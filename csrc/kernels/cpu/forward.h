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
            if (lanes[1] == Vec<T>::lanes) return finish_whole<MR>(sum, row);
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
        const std::int64_t j = column + half * Vec<T>::lanes;
        if (args.bias) {
            const Vec<T> bias = Vec<T>::load(args.bias + j);
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + bias; });
        }
        for (int s = 0; s < args.n_identity; ++s) {
            const T* from = args.identity[s].data + row * args.identity[s].stride + j;
            const std::int64_t stride = args.identity[s].stride;
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + Vec<T>::load(from + i * stride); });
        }
        if (args.branch.z.data)
            each_row<MR>([&](int i) { z.at[i][half] = z.at[i][half] + branch(row + i, j, Vec<T>::lanes); });
        if (args.argument.data)
            each_row<MR>(
                [&](int i) { z.at[i][half].store(args.argument.data + (row + i) * args.argument.stride + j); });
        each_row<MR>([&](int i) { z.at[i][half] = Activation::forward(z.at[i][half]); });
        if (args.mask.data)
            each_row<MR>([&](int i) {
                z.at[i][half] = z.at[i][half] * Vec<T>::load(args.mask.data + (row + i) * args.mask.stride + j);
            });
        T* to = args.out.data + row * args.out.stride + j;
        each_row<MR>([&](int i) { z.at[i][half].store(to + i * args.out.stride); });
    }

    // Anything else: partial vectors, and the activations that are long themselves.
    __attribute__((noinline)) void finish_from_memory(const T* sum, int rows, std::int64_t row) {
        for (int half = 0; half < 2; ++half) {
            if (lanes[half] <= 0) return;
            const std::int64_t j = column + half * Vec<T>::lanes;
            const Vec<T> bias = args.bias ? Vec<T>::load(args.bias + j, lanes[half]) : Vec<T>();
            for (int i = 0; i < rows; ++i)
                finish(Vec<T>::load(sum + (2 * i + half) * Vec<T>::lanes) + bias, row + i, j, lanes[half]);
        }
    }

    RC_HD void finish(Vec<T> z, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            z = z + Vec<T>::load(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.branch.z.data) z = z + branch(i, j, n);
        if (args.argument.data) z.store(args.argument.data + i * args.argument.stride + j, n);
        Vec<T> a = Activation::forward(z);
        if (args.mask.data) a = a * Vec<T>::load(args.mask.data + i * args.mask.stride + j, n);
        a.store(args.out.data + i * args.out.stride + j, n);
    }

    RC_HD Vec<T> branch(std::int64_t i, std::int64_t j, int n) {
        const Branch<T>& b = args.branch;
        Vec<T> z = Vec<T>::load(b.z.data + i * b.z.stride + j, n);
        if (b.center)
            z = multiply_add(z - Vec<T>::load(b.center + j, n), Vec<T>::load(b.scale + j, n),
                             Vec<T>::load(b.shift + j, n));
        if (b.mask.data) z = z * Vec<T>::load(b.mask.data + i * b.mask.stride + j, n);
        return z;
    }
};

template <class T, class Make>
RC_HD void visit_tiles(std::int64_t rows, std::int64_t columns, Make make) {
    constexpr int lanes = Vec<T>::lanes;
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

template <class T>
void forward(const ForwardArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto g) {
        visit_tiles<T>(args.rows, args.columns, [&](std::int64_t panel, std::int64_t column) {
            return ForwardTile<T, decltype(g)>{args, panel, column, {0, 0}};
        });
    });
}

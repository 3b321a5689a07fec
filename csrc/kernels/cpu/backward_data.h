// residual_backward_data: the same product over the consumers' δ and transposed weights, then skip gradients, dropout
// and the activation's derivative in registers. Included inside an ISA's namespace, after forward.h.

// g′ from what the layer kept. Where the argument was kept although the derivative reads the output, g is taken again.
template <class Activation, class V>
RC_HD V derivative(V saved, bool saved_is_argument) {
    if constexpr (!Activation::needs_argument)
        if (saved_is_argument) saved = Activation::forward(saved);
    return Activation::derivative(saved);
}

template <class T, class Activation>
struct BackwardDataTile {
    const BackwardDataArgs<T>& args;
    std::int64_t panel, column;
    int lanes[2];

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

    // As ForwardTile's.
    template <int MR>
    RC_HD void finish_whole(Accumulators<T, MR>& g, std::int64_t row) {
        finish_half<MR, 0>(g, row);
        finish_half<MR, 1>(g, row);
    }
    template <int MR, int half>
    RC_HD void finish_half(Accumulators<T, MR>& g, std::int64_t row) {
        const std::int64_t j = column + half * lanes_of<T>;
        for (int s = 0; s < args.n_identity; ++s) {
            const T* from = args.identity[s].data + row * args.identity[s].stride + j;
            const std::int64_t stride = args.identity[s].stride;
            each_row<MR>([&](int i) { g.at[i][half] = g.at[i][half] + read(from + i * stride); });
        }
        if (args.mask.data)
            each_row<MR>([&](int i) {
                g.at[i][half] = g.at[i][half] * read(args.mask.data + (row + i) * args.mask.stride + j);
            });
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const T* saved = args.saved.data + row * args.saved.stride + j;
            each_row<MR>([&](int i) {
                const Vec<Compute<T>> of_g = read(saved + i * args.saved.stride);
                g.at[i][half] = g.at[i][half] * derivative<Activation>(of_g, args.saved_is_argument);
            });
        }
        T* to = args.out.data + row * args.out.stride + j;
        each_row<MR>([&](int i) { write(g.at[i][half], to + i * args.out.stride); });
    }

    __attribute__((noinline)) void finish_from_memory(const Compute<T>* sum, int rows, std::int64_t row) {
        for (int half = 0; half < 2; ++half) {
            if (lanes[half] <= 0) return;
            const std::int64_t j = column + half * lanes_of<T>;
            for (int i = 0; i < rows; ++i) finish(read(sum + (2 * i + half) * lanes_of<T>), row + i, j, lanes[half]);
        }
    }

    RC_HD void finish(Vec<Compute<T>> g, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            g = g + read(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.mask.data) g = g * read(args.mask.data + i * args.mask.stride + j, n);
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const Vec<Compute<T>> saved = read(args.saved.data + i * args.saved.stride + j, n);
            g = g * derivative<Activation>(saved, args.saved_is_argument);
        }
        write(g, args.out.data + i * args.out.stride + j, n);
    }
};

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto g) {
        visit_tiles<T>(args.rows, args.columns, [&](std::int64_t panel, std::int64_t column) {
            return BackwardDataTile<T, decltype(g)>{args, panel, column, {0, 0}};
        });
    });
}

// residual_backward_data: the same product over the consumers' δ and transposed weights, then skip gradients, dropout
// and the activation's derivative in registers. Included inside an ISA's namespace, after forward.h.

// g′ from what the layer kept. Where the argument was kept although the derivative reads the output, g is taken again.
template <class Activation, class T>
RC_HD Vec<T> derivative(Vec<T> saved, bool saved_is_argument) {
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
        if constexpr (in_registers<T, Activation>) {
            Accumulators<T, MR> sum = product<T, MR>(args.sources, args.n_sources, row, panel);
            finish_rows(sum.at, MR, row);
        } else {
            Accumulators<T, MR> sum;
            product_into<T, MR>(sum, args.sources, args.n_sources, row, panel);
            finish_from_memory(sum.at, MR, row);
        }
    }

    __attribute__((noinline)) void finish_from_memory(const Vec<T> (*sum)[2], int rows, std::int64_t row) {
        finish_rows(sum, rows, row);
    }
    RC_HD void finish_rows(const Vec<T> (*sum)[2], int rows, std::int64_t row) {
        for (int half = 0; half < 2; ++half) {
            if (lanes[half] <= 0) return;
            const std::int64_t j = column + half * Vec<T>::lanes;
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i) finish(sum[i][half], row + i, j, lanes[half]);
        }
    }

    RC_HD void finish(Vec<T> g, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            g = g + Vec<T>::load(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.mask.data) g = g * Vec<T>::load(args.mask.data + i * args.mask.stride + j, n);
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const Vec<T> saved = Vec<T>::load(args.saved.data + i * args.saved.stride + j, n);
            g = g * derivative<Activation>(saved, args.saved_is_argument);
        }
        g.store(args.out.data + i * args.out.stride + j, n);
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

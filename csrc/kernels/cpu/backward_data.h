// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative. Included inside an ISA's namespace.

template <class T, class Activation>
struct BackwardDataEpilogue : Epilogue<T, Activation, BackwardDataArgs<T>, BackwardDataEpilogue<T, Activation>> {
    using BackwardDataEpilogue::Epilogue::args, BackwardDataEpilogue::Epilogue::column;

    static RC_HD bool is_plain(const BackwardDataArgs<T>& args) { return !args.mask.data; }
    template <int MR, bool plain = false, class Columns = AllColumns>
    RC_HD void finish_rows(Accumulators<T, MR, 2>& g, std::int64_t row, Columns columns = {}) {
        for (int s = 0; s < args.n_identity; ++s) this->add_rows(g, args.identity[s], row, columns);
        if (!plain && args.mask.data) this->multiply_rows(g, args.mask, row, columns);
        if (args.scale != 1)
            each_row<MR>(
                [&](int i) { each_row<2>([&](int v) { g.at[i][v] = g.at[i][v] * Vec<Compute<T>>(args.scale); }); });
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const T* const saved = args.saved.data + row * args.saved.stride + column;
            if constexpr (std::is_same<Activation, Relu>::value && packs_lines<T> &&
                          std::is_same<Columns, AllColumns>::value) {
                T* const out = args.out.data + row * args.out.stride + column;
                const std::int64_t stride = args.out.stride, saved_stride = args.saved.stride;
                return each_row<MR>(
                    [&](int i) { write_chosen({g.at[i][0], g.at[i][1]}, saved + i * saved_stride, out + i * stride); });
            }
            each_row<MR>([&](int i) {
                const Both<Compute<T>> of_g = read_both(saved + i * args.saved.stride, columns);
                g.at[i][0] = times_derivative<Activation>(g.at[i][0], of_g.low, args.saved_is_argument);
                g.at[i][1] = times_derivative<Activation>(g.at[i][1], of_g.high, args.saved_is_argument);
            });
        }
        this->write_rows(g, args.out, row, columns);
    }

    RC_HD Vec<Compute<T>> bias(std::int64_t, int) const { return Vec<Compute<T>>(); }
    RC_HD void finish(Vec<Compute<T>> g, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            g = g + read(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.mask.data) g = g * read(args.mask.data + i * args.mask.stride + j, n);
        if (args.scale != 1) g = g * Vec<Compute<T>>(args.scale);
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const Vec<Compute<T>> saved = read(args.saved.data + i * args.saved.stride + j, n);
            g = times_derivative<Activation>(g, saved, args.saved_is_argument);
        }
        write(g, args.out.data + i * args.out.stride + j, n);
    }
};

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto g) {
        sum_panels<T, BackwardDataEpilogue<T, decltype(g)>>(args, args.first_panel, args.last_panel);
    });
}

// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative. Included inside an ISA's namespace.

template <class T, class Activation>
struct BackwardDataEpilogue : Epilogue<T, Activation, BackwardDataArgs<T>, BackwardDataEpilogue<T, Activation>> {
    using BackwardDataEpilogue::Epilogue::args;

    template <int MR, int half>
    RC_HD void finish_half(Accumulators<T, MR, 2>& g, std::int64_t row, std::int64_t j) {
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
                g.at[i][half] = times_derivative<Activation>(g.at[i][half], of_g, args.saved_is_argument);
            });
        }
        this->template write_half<half>(g, args.out, row, j);
    }

    RC_HD Vec<Compute<T>> bias(std::int64_t, int) const { return Vec<Compute<T>>(); }
    RC_HD void finish(Vec<Compute<T>> g, std::int64_t i, std::int64_t j, int n) {
        for (int s = 0; s < args.n_identity; ++s)
            g = g + read(args.identity[s].data + i * args.identity[s].stride + j, n);
        if (args.mask.data) g = g * read(args.mask.data + i * args.mask.stride + j, n);
        if constexpr (!std::is_same<Activation, Identity>::value) {
            const Vec<Compute<T>> saved = read(args.saved.data + i * args.saved.stride + j, n);
            g = times_derivative<Activation>(g, saved, args.saved_is_argument);
        }
        write(g, args.out.data + i * args.out.stride + j, n);
    }
};

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    constexpr std::int64_t all = std::numeric_limits<std::int64_t>::max();
    visit_type(args.activation, Activations{},
               [&](auto g) { sum_panels<T, BackwardDataEpilogue<T, decltype(g)>>(args, 0, all); });
}

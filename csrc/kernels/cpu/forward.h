// residual_forward: sums, then bias, skips, a branch and the activation. Included inside an ISA's namespace.

template <class T, class Activation>
struct ForwardEpilogue : Epilogue<T, Activation, ForwardArgs<T>, ForwardEpilogue<T, Activation>> {
    using ForwardEpilogue::Epilogue::args, ForwardEpilogue::Epilogue::column;

    static RC_HD bool is_plain(const ForwardArgs<T>& args) {
        return args.out.data && !args.branch.z.data && !args.argument.data && !args.mask.data && !args.wide.data;
    }
    template <int MR, bool plain = false, class Columns = AllColumns>
    RC_HD void finish_rows(Accumulators<T, MR, 2>& z, std::int64_t row, Columns columns = {}) {
        if (args.bias) {
            const Both<Compute<T>> bias = read_both(args.bias + column, columns);
            each_row<MR>([&](int i) {
                z.at[i][0] = z.at[i][0] + bias.low;
                z.at[i][1] = z.at[i][1] + bias.high;
            });
        }
        for (int s = 0; s < args.n_identity; ++s) this->add_rows(z, args.identity[s], row, columns);
        if (!plain && args.branch.z.data) {
            add_branch<MR, 0>(z, row, columns);
            if constexpr (Columns::vectors == 2) add_branch<MR, 1>(z, row, columns);
        }
        if (!plain && args.argument.data) this->write_rows(z, args.argument, row, columns);
        each_row<MR>([&](int i) { each_row<2>([&](int v) { z.at[i][v] = Activation::forward(z.at[i][v]); }); });
        if (!plain && args.mask.data) this->multiply_rows(z, args.mask, row, columns);
        if (plain || computes_itself<T> || args.out.data) this->write_rows(z, args.out, row, columns);
        if (!plain && !computes_itself<T> && args.wide.data) this->write_rows(z, args.wide, row, columns);
    }

    RC_HD Vec<Compute<T>> bias(std::int64_t j, int n) const {
        return args.bias ? read(args.bias + j, n) : Vec<Compute<T>>();
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

    // A branch's norm of the columns of a vector.
    struct Norm {
        Vec<Compute<T>> center, scale, shift;

        RC_HD Vec<Compute<T>> of(Vec<Compute<T>> z) const { return multiply_add(z - center, scale, shift); }
    };
    // `of_columns` reads those of these columns.
    template <class Read>
    RC_HD Norm norm(Read of_columns) const {
        const Branch<T>& b = args.branch;
        if (!b.center) return {};
        return {of_columns(b.center), of_columns(b.scale), of_columns(b.shift)};
    }
    RC_HD Vec<Compute<T>> branch(std::int64_t i, std::int64_t j, int n) const {
        const Branch<T>& b = args.branch;
        Vec<Compute<T>> z = read(b.z.data + i * b.z.stride + j, n);
        if (b.center) z = norm([&](const Compute<T>* p) { return read(p + j, n); }).of(z);
        if (b.mask.data) z = z * read(b.mask.data + i * b.mask.stride + j, n);
        return z;
    }
    // The same for all rows of a tile, whose columns' norm is read once.
    template <int MR, int half, class Columns>
    RC_HD void add_branch(Accumulators<T, MR, 2>& z, std::int64_t row, Columns columns) const {
        const Branch<T>& b = args.branch;
        const Rows<T> from = b.z;
        const Rows<Compute<T>> mask = b.mask;
        const bool has_norm = b.center;
        if constexpr (half == 0)
            for (int i = 0; i < MR; ++i) ask_for(from, row + MR + i, args.rows, column, 2);
        const Norm norm = this->norm([&](const Compute<T>* p) { return read_vector<half>(p + column, columns); });
        each_row<MR>([&](int i) {
            Vec<Compute<T>> x = read_vector<half>(from.data + (row + i) * from.stride + column, columns);
            if (has_norm) x = norm.of(x);
            if (mask.data) x = x * read_vector<half>(mask.data + (row + i) * mask.stride + column, columns);
            z.at[i][half] = z.at[i][half] + x;
        });
    }
};

template <class T>
void forward(const ForwardArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto g) {
        sum_panels<T, ForwardEpilogue<T, decltype(g)>>(args, args.first_panel, args.last_panel);
    });
}

// Batch normalisation's column sums and its backward. Included inside an ISA's namespace.

template <class T, class Body>
RC_HD void for_columns(std::int64_t columns, Body body) {
    constexpr std::int64_t lanes = lanes_of<T>;
    for (std::int64_t j = 0; j < columns; j += lanes)
        body(j, columns - j < lanes ? static_cast<int>(columns - j) : static_cast<int>(lanes));
}

template <class T>
RC_HD Vec<Compute<T>> at(Rows<T> rows, std::int64_t i, std::int64_t j, int n) {
    return read(rows.data + i * rows.stride + j, n);
}

// Two passes over a chunk that is in cache: squares are of deviations, so a large mean costs no digits.
template <class T>
void moments(const MomentsArgs<T>& args) {
    for_columns<T>(args.columns, [&](std::int64_t j, int n) {
        Vec<Compute<T>> sum, squares;
        for (std::int64_t i = 0; i < args.rows; ++i) sum = sum + at(args.in, i, j, n);
        const Vec<Compute<T>> mean = sum / Vec<Compute<T>>(args.rows);
        for (std::int64_t i = 0; i < args.rows; ++i) {
            const Vec<Compute<T>> d = at(args.in, i, j, n) - mean;
            squares = multiply_add(d, d, squares);
        }
        mean.store(args.mean + j, n);
        squares.store(args.m2 + j, n);
    });
}

template <class T>
void norm_sums(const NormSumsArgs<T>& args) {
    for_columns<T>(args.columns, [&](std::int64_t j, int n) {
        const Vec<Compute<T>> mean = read(args.mean + j, n), inverse = read(args.inverse_deviation + j, n);
        Vec<Compute<T>> sum, sum_xhat;
        for (std::int64_t i = 0; i < args.rows; ++i) {
            Vec<Compute<T>> d = at(args.delta, i, j, n);
            if (args.mask.data) d = d * at(args.mask, i, j, n);
            sum = sum + d;
            sum_xhat = multiply_add(d, (at(args.z, i, j, n) - mean) * inverse, sum_xhat);
        }
        sum.store(args.sum + j, n);
        sum_xhat.store(args.sum_xhat + j, n);
    });
}

template <class T>
void norm_backward(const NormBackwardArgs<T>& args) {
    for (std::int64_t i = 0; i < args.rows; ++i)
        for_columns<T>(args.columns, [&](std::int64_t j, int n) {
            Vec<Compute<T>> d = at(args.delta, i, j, n);
            if (args.mask.data) d = d * at(args.mask, i, j, n);
            if (args.z.data) {
                const Vec<Compute<T>> xhat =
                    (at(args.z, i, j, n) - read(args.mean + j, n)) * read(args.inverse_deviation + j, n);
                d = read(args.scale + j, n) *
                    multiply_add(-xhat, read(args.mean_dx + j, n), d - read(args.mean_d + j, n));
            }
            write(d, args.out.data + i * args.out.stride + j, n);
        });
}

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

// Columns in blocks, as many as keep their sums in registers: a pass over the rows then reads whole cache lines side by
// side, which is what the hardware fetches ahead. body(vectors, j, n): `vectors` of them from column j, n lanes of
// each.
template <class T, class Body>
RC_HD void for_column_blocks(std::int64_t columns, Body body) {
    constexpr int lanes = lanes_of<T>, block = 4;
    std::int64_t j = 0;
    for (; j + block * lanes <= columns; j += block * lanes) body(std::integral_constant<int, block>(), j, lanes);
    for (; j < columns; j += lanes)
        body(std::integral_constant<int, 1>(), j, columns - j < lanes ? static_cast<int>(columns - j) : lanes);
}

// Two passes over a chunk that is in cache: squares are of deviations, so a large mean costs no digits.
template <class T>
void moments(const MomentsArgs<T>& args) {
    using V = Vec<Compute<T>>;
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        V mean[vectors], squares[vectors];
        for (std::int64_t i = 0; i < args.rows; ++i)
            for (int v = 0; v < vectors; ++v) mean[v] = mean[v] + at(args.in, i, j + v * V::lanes, n);
        for (int v = 0; v < vectors; ++v) mean[v] = mean[v] / V(args.rows);
        for (std::int64_t i = 0; i < args.rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                const V d = at(args.in, i, j + v * V::lanes, n) - mean[v];
                squares[v] = multiply_add(d, d, squares[v]);
            }
        for (int v = 0; v < vectors; ++v) {
            mean[v].store(args.mean + j + v * V::lanes, n);
            squares[v].store(args.m2 + j + v * V::lanes, n);
        }
    });
}

template <class T>
void norm_sums(const NormSumsArgs<T>& args) {
    using V = Vec<Compute<T>>;
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        V mean[vectors], inverse[vectors], sum[vectors], sum_xhat[vectors];
        for (int v = 0; v < vectors; ++v) {
            mean[v] = read(args.mean + j + v * V::lanes, n);
            inverse[v] = read(args.inverse_deviation + j + v * V::lanes, n);
        }
        for (std::int64_t i = 0; i < args.rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                V d = at(args.delta, i, j + v * V::lanes, n);
                if (args.mask.data) d = d * at(args.mask, i, j + v * V::lanes, n);
                sum[v] = sum[v] + d;
                sum_xhat[v] = multiply_add(d, (at(args.z, i, j + v * V::lanes, n) - mean[v]) * inverse[v], sum_xhat[v]);
            }
        for (int v = 0; v < vectors; ++v) {
            sum[v].store(args.sum + j + v * V::lanes, n);
            sum_xhat[v].store(args.sum_xhat + j + v * V::lanes, n);
        }
    });
}

// scale·(d − mean_d − x̂·mean_dx) as scale·d + (z − mean)·slope + shift: three operations an element.
template <class T>
void norm_backward(const NormBackwardArgs<T>& args) {
    using V = Vec<Compute<T>>;
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        V mean[vectors], scale[vectors], slope[vectors], shift[vectors];
        for (int v = 0; v < vectors && args.z.data; ++v) {
            const std::int64_t at = j + v * V::lanes;
            mean[v] = read(args.mean + at, n);
            scale[v] = read(args.scale + at, n);
            slope[v] = -(scale[v] * read(args.inverse_deviation + at, n) * read(args.mean_dx + at, n));
            shift[v] = -(scale[v] * read(args.mean_d + at, n));
        }
        for (std::int64_t i = 0; i < args.rows; ++i) {
            V d[vectors];
            for (int v = 0; v < vectors; ++v) d[v] = at(args.delta, i, j + v * V::lanes, n);
            if (args.mask.data)
                for (int v = 0; v < vectors; ++v) d[v] = d[v] * at(args.mask, i, j + v * V::lanes, n);
            if (args.z.data)
                for (int v = 0; v < vectors; ++v) {
                    const V away = at(args.z, i, j + v * V::lanes, n) - mean[v];
                    d[v] = multiply_add(scale[v], d[v], multiply_add(away, slope[v], shift[v]));
                }
            for (int v = 0; v < vectors; ++v) write(d[v], args.out.data + i * args.out.stride + j + v * V::lanes, n);
        }
    });
}

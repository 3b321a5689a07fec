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

// visit(chunk, first row, rows) for the chunks that some rows of a batch are cut into; rows are counted from the first.
template <class Args, class Visit>
RC_HD void for_chunks(const Args& args, Visit visit) {
    const std::int64_t chunk = args.sums.chunk;
    for (std::int64_t row = 0; row < args.rows; row += chunk)
        visit((args.first_row + row) / chunk, row, args.rows - row < chunk ? args.rows - row : chunk);
}

// Two passes over a chunk that is in cache: squares are of deviations, so a large mean costs no digits.
template <class T>
RC_HD void moments_of_chunk(const MomentsArgs<T>& args, std::int64_t chunk, std::int64_t first, std::int64_t rows) {
    using V = Vec<Compute<T>>;
    const Rows<T> in{args.in.data + first * args.in.stride, args.in.stride};
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        V mean[vectors], squares[vectors];
        for (std::int64_t i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) mean[v] = mean[v] + at(in, i, j + v * V::lanes, n);
        for (int v = 0; v < vectors; ++v) mean[v] = mean[v] / V(rows);
        for (std::int64_t i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                const V d = at(in, i, j + v * V::lanes, n) - mean[v];
                squares[v] = multiply_add(d, d, squares[v]);
            }
        for (int v = 0; v < vectors; ++v) {
            mean[v].store(args.sums.first(chunk) + j + v * V::lanes, n);
            squares[v].store(args.sums.second(chunk) + j + v * V::lanes, n);
        }
    });
}

template <class T>
void moments(const MomentsArgs<T>& args) {
    for_chunks(args, [&](std::int64_t chunk, std::int64_t first, std::int64_t rows) {
        moments_of_chunk(args, chunk, first, rows);
    });
}

template <class T>
RC_HD void norm_sums_of_chunk(const NormSumsArgs<T>& args, std::int64_t chunk, std::int64_t first, std::int64_t rows) {
    using V = Vec<Compute<T>>;
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        V mean[vectors], inverse[vectors], sum[vectors], sum_xhat[vectors];
        for (int v = 0; v < vectors; ++v) {
            mean[v] = read(args.mean + j + v * V::lanes, n);
            inverse[v] = read(args.inverse_deviation + j + v * V::lanes, n);
        }
        for (std::int64_t i = first; i < first + rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                V d = at(args.delta, i, j + v * V::lanes, n);
                if (args.mask.data) d = d * at(args.mask, i, j + v * V::lanes, n);
                sum[v] = sum[v] + d;
                sum_xhat[v] = multiply_add(d, (at(args.z, i, j + v * V::lanes, n) - mean[v]) * inverse[v], sum_xhat[v]);
            }
        for (int v = 0; v < vectors; ++v) {
            sum[v].store(args.sums.first(chunk) + j + v * V::lanes, n);
            sum_xhat[v].store(args.sums.second(chunk) + j + v * V::lanes, n);
        }
    });
}

template <class T>
void norm_sums(const NormSumsArgs<T>& args) {
    for_chunks(args, [&](std::int64_t chunk, std::int64_t first, std::int64_t rows) {
        norm_sums_of_chunk(args, chunk, first, rows);
    });
}

template <class T>
void combine_moments(const CombineMomentsArgs<T>& args) {
    for (std::int64_t j = args.begin; j < args.end; ++j) finish_moments(args, j, moments_of_all(args.sums, j));
}
template <class T>
void combine_norm_sums(const CombineNormSumsArgs<T>& args) {
    for (std::int64_t j = args.begin; j < args.end; ++j) {
        const ColumnSums all = sums_of_all(args.sums, j);
        finish_norm_sums(args, j, all.first, all.second);
    }
}
template <class T>
void running_coefficients(const RunningCoefficientsArgs<T>& args) {
    for (std::int64_t j = 0; j < args.columns; ++j) running_coefficients_of_column(args, j);
}

template <class T>
void norm_backward(const NormBackwardArgs<T>& given) {
    using V = Vec<Compute<T>>;
    const NormBackwardArgs<T> args = given;  // a copy, which nothing that is written can be
    for_column_blocks<T>(args.columns, [&](auto vectors, std::int64_t j, int n) {
        NormSlope<V> slope[vectors];
        for (int v = 0; v < vectors && args.z.data; ++v) {
            const std::int64_t at = j + v * V::lanes;
            slope[v] = norm_slope(read(args.mean + at, n), read(args.inverse_deviation + at, n),
                                  read(args.scale + at, n), read(args.mean_d + at, n), read(args.mean_dx + at, n));
        }
        for (std::int64_t i = 0; i < args.rows; ++i) {
            constexpr std::int64_t ahead = 12;
            ask_for(args.delta, i + ahead, args.rows, j, vectors);
            if (args.z.data) ask_for(args.z, i + ahead, args.rows, j, vectors);
            V d[vectors];
            for (int v = 0; v < vectors; ++v) d[v] = at(args.delta, i, j + v * V::lanes, n);
            if (args.mask.data)
                for (int v = 0; v < vectors; ++v) d[v] = d[v] * at(args.mask, i, j + v * V::lanes, n);
            if (args.z.data)
                for (int v = 0; v < vectors; ++v) d[v] = slope[v](d[v], at(args.z, i, j + v * V::lanes, n));
            for (int v = 0; v < vectors; ++v) write(d[v], args.out.data + i * args.out.stride + j + v * V::lanes, n);
        }
    });
    keep_largest(args.rows, args.columns, args.out, args.largest);
}

// Between row-major matrices and packed panels, and between storage and what is computed with (see ops.h). Included
// inside an ISA's namespace.

template <class T>
void pack(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    for (std::int64_t first = 0; first < columns; first += width)
        for (std::int64_t k = 0; k < inner; ++k)
            for (std::int64_t j = 0; j < width; ++j)
                *panels++ = first + j < columns ? w.data[k * w.stride + first + j] : 0;
}

template <class T>
void unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    for (std::int64_t first = 0; first < columns; first += width)
        for (std::int64_t k = 0; k < inner; ++k, panels += width)
            for (std::int64_t j = 0; j < width && first + j < columns; ++j)
                w.data[k * w.stride + first + j] = panels[j];
}

// The operand of a matrix (inner, columns) whose element (k, j) is at(k, j).
template <class T, class At>
RC_HD void pack_elements(std::int64_t inner, std::int64_t columns, T* panels, At at) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    for (std::int64_t first = 0; first < columns; first += width)
        if constexpr (computes_itself<T>) {
            for (std::int64_t k = 0; k < inner; ++k)
                for (std::int64_t j = first; j < first + width; ++j) *panels++ = j < columns ? at(k, j) : 0;
        } else if constexpr (operand_parts<T> == 2) {
            for (std::int64_t k = 0; k < operand_rows<T>(inner) / 2; ++k, panels += 2 * width)
                for (std::int64_t j = 0; j < width; ++j) {
                    const T x = to_bfloat16x2(first + j < columns && k < inner ? at(k, first + j) : 0);
                    panels[j] = {x.high, x.high}, panels[width + j] = {x.low, x.low};
                }
        } else {
            for (std::int64_t k = 0; k < operand_rows<T>(inner); k += 2)
                for (std::int64_t j = first; j < first + width; ++j)
                    for (std::int64_t half = 0; half < 2; ++half)
                        *panels++ = to_bfloat16(j < columns && k + half < inner ? at(k + half, j) : 0);
        }
}

template <class T>
void pack_operand(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    pack_elements(inner, columns, panels, [&](std::int64_t k, std::int64_t j) { return w.data[k * w.stride + j]; });
}

template <class T>
void pack_transposed(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    pack_elements(columns, inner, panels, [&](std::int64_t j, std::int64_t k) { return w.data[k * w.stride + j]; });
}

template <class T>
void fold(const FoldArgs<T>& args) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    pack_elements(args.inner, args.columns, args.out, [&](std::int64_t k, std::int64_t j) {
        return args.panels[(j / width * args.inner + k) * width + j % width] * args.norm.scale[j];
    });
    for (std::int64_t j = 0; j < args.columns; ++j)
        args.bias[j] = folded_bias(args.norm.shift[j], args.norm.mean[j], args.norm.scale[j]);
}

template <class In, class Out>
RC_HD void convert(std::int64_t rows, std::int64_t columns, Rows<In> in, MutableRows<Out> out) {
    for (std::int64_t i = 0; i < rows; ++i)
        for_columns<In>(columns, [&](std::int64_t j, int n) {
            write(read(in.data + i * in.stride + j, n), out.data + i * out.stride + j, n);
        });
}
template <class T>
void narrow(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out, double*) {
    convert(rows, columns, in, out);
}
template <class T>
void widen(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out) {
    convert(rows, columns, in, out);
}

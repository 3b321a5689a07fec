// Between row-major matrices and packed panels, and between storage and what is computed with (see ops.h). Included
// inside an ISA's namespace.

// use(block, k, j, rows, columns) as `visit_panel_blocks` has it, for all of W, in the order in which its rows lie.
template <class C, class Use>
RC_HD void visit_matrix_blocks(Rows<C> w, std::int64_t inner, std::int64_t columns, Use use) {
    constexpr std::int64_t width = 2 * Vec<C>::lanes;
    for (std::int64_t k = 0; k < inner; k += width)
        for (std::int64_t column = 0; column < columns; column += width)
            visit_panel_blocks<C>({w.data + k * w.stride + column, w.stride}, 0, inner - k < width ? inner - k : width,
                                  columns, column,
                                  [&](auto& block, std::int64_t i, std::int64_t j, auto rows, auto outs) {
                                      use(block, k + i, j, rows, outs);
                                  });
}

template <class T, class To = ThroughCaches>
void pack_operand(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    clear_padding(inner, columns, panels);
    visit_matrix_blocks<Compute<T>>(
        w, inner, columns, [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto) {
            write_rows<To>(block, rows, panels + j / width * operand_rows<T>(inner) * width, k, j % width);
        });
    To::settle();
}

template <class T, class To = ThroughCaches>
void pack_transposed(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    clear_padding(columns, inner, panels);
    visit_matrix_blocks<Compute<T>>(
        w, inner, columns, [&](auto& block, std::int64_t k, std::int64_t j, auto, auto outs) {
            transpose<Compute<T>>(block);
            write_rows<To>(block, outs, panels + k / width * operand_rows<T>(columns) * width, j, k % width);
        });
    To::settle();
}

template <class T>
void pack(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels) {
    pack_operand<Compute<T>>(inner, columns, w, panels);
}

template <class T>
void unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    for (std::int64_t column = 0; column < columns; column += width, panels += inner * width)
        visit_panel_blocks<Compute<T>>({panels, width}, 0, inner, columns, column,
                                       [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
                                           for (int i = 0; i < rows; ++i)
                                               write(block[i], w.data + (k + i) * w.stride + j, outs);
                                       });
}

template <class T, class To = ThroughCaches>
void unpack_transposed(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    using Whole = std::integral_constant<int, lanes_of<T>>;
    for (std::int64_t column = 0; column < columns; column += width, panels += inner * width)
        visit_panel_blocks<Compute<T>>({panels, width}, 0, inner, columns, column,
                                       [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
                                           transpose<Compute<T>>(block);
                                           for (int i = 0; i < outs; ++i) {
                                               Compute<T>* const to = w.data + (j + i) * w.stride + k;
                                               if constexpr (std::is_same_v<decltype(rows), Whole>)
                                                   To::put(block[i], to);
                                               else
                                                   write(block[i], to, rows);
                                           }
                                       });
    To::settle();
}

template <class T>
void fold(const FoldArgs<T>& args) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    clear_padding(args.inner, args.columns, args.out);
    for (std::int64_t column = 0; column < args.columns; column += width)
        visit_panel_blocks<Compute<T>>({args.panels + column * args.inner, width}, 0, args.inner, args.columns, column,
                                       [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
                                           const auto scale = read(args.norm.scale + j, outs);
                                           for (int i = 0; i < rows; ++i) block[i] = block[i] * scale;
                                           write_rows(block, rows, args.out + column * operand_rows<T>(args.inner), k,
                                                      j - column);
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
void narrow(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out, double* largest) {
    convert(rows, columns, in, out);
    keep_largest(rows, columns, out, largest);
}
template <class T>
void widen(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out) {
    convert(rows, columns, in, out);
}

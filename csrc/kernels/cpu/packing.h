// Between row-major matrices and packed panels (see ops.h). Included inside an ISA's namespace.

template <class T>
void pack(std::int64_t inner, std::int64_t columns, Rows<T> w, T* panels) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    for (std::int64_t first = 0; first < columns; first += width)
        for (std::int64_t k = 0; k < inner; ++k)
            for (std::int64_t j = 0; j < width; ++j)
                *panels++ = first + j < columns ? w.data[k * w.stride + first + j] : T(0);
}

template <class T>
void pack_transposed(std::int64_t inner, std::int64_t columns, Rows<T> w, T* panels) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    for (std::int64_t first = 0; first < inner; first += width)
        for (std::int64_t j = 0; j < columns; ++j)
            for (std::int64_t k = 0; k < width; ++k)
                *panels++ = first + k < inner ? w.data[(first + k) * w.stride + j] : T(0);
}

template <class T>
void unpack(std::int64_t inner, std::int64_t columns, const T* panels, MutableRows<T> w) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    for (std::int64_t first = 0; first < columns; first += width)
        for (std::int64_t k = 0; k < inner; ++k, panels += width)
            for (std::int64_t j = 0; j < width && first + j < columns; ++j)
                w.data[k * w.stride + first + j] = panels[j];
}

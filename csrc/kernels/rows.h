// Views of row-major matrices, which the arguments of kernels are made of. They own nothing.
#pragma once

#include <cstdint>

namespace resnetcore {

// A tile of rows: element (i, j) is data[i * stride + j]; the width is known from the operation.
template <class T>
struct Rows {
    const T* data = nullptr;
    std::int64_t stride = 0;
};

template <class T>
struct MutableRows {
    T* data = nullptr;
    std::int64_t stride = 0;
    operator Rows<T>() const { return {data, stride}; }
};

// From a row on; of none, none.
template <class T>
Rows<T> rows_from(const Rows<T>& all, std::int64_t row) {
    return {all.data ? all.data + row * all.stride : nullptr, all.stride};
}
template <class T>
MutableRows<T> rows_from(const MutableRows<T>& all, std::int64_t row) {
    return {all.data ? all.data + row * all.stride : nullptr, all.stride};
}

}  // namespace resnetcore

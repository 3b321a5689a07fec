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

}  // namespace resnetcore

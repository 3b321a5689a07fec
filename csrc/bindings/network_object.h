// The network as Python holds it: a model that is shared with the trainers that train it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "train/any_model.h"

namespace resnetcore {

struct NetworkObject : AnyModel {
    // What products multiply.
    const char* operands() const {
        constexpr const char* names[] = {"float32", "float64", "bfloat16", "bfloat16x2"};
        return names[model.index()];
    }
};

// Row-major values of one parameter as a new array, (rows, columns) or (columns).
template <class T>
pybind11::array_t<T> parameter_array(const Parameter& p) {
    if (p.is_matrix()) return pybind11::array_t<T>({p.rows, p.columns});
    return pybind11::array_t<T>(p.columns);
}

}  // namespace resnetcore

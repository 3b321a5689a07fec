// The network as Python holds it: a model that stores what it computes with, or narrower numbers, shared with the
// trainers that train it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <variant>

#include "train/model.h"

namespace resnetcore {

template <class T>
using ModelPtr = std::shared_ptr<Model<T>>;

struct NetworkObject {
    std::variant<ModelPtr<float>, ModelPtr<double>, ModelPtr<bfloat16>, ModelPtr<bfloat16x2>> model;
    std::string dtype, matmul_precision;  // as asked for

    // What products multiply.
    const char* operands() const {
        constexpr const char* names[] = {"float32", "float64", "bfloat16", "bfloat16x2"};
        return names[model.index()];
    }

    // Calls visit(Model<T>&) with the network's own T.
    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, model);
    }
};

// Row-major values of one parameter as a new array, (rows, columns) or (columns).
template <class T>
pybind11::array_t<T> parameter_array(const Parameter& p) {
    if (p.is_matrix()) return pybind11::array_t<T>({p.rows, p.columns});
    return pybind11::array_t<T>(p.columns);
}

}  // namespace resnetcore

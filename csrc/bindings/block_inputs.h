// The arguments that all functions of the block have, as Python gives them, where one device's kernels read them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/array.h"
#include "functional/residual.h"
#include "math/activation.h"

namespace resnetcore {

// Keeps every matrix alive (and copied, where its layout asks for it) while the kernels read it.
template <class T>
struct BlockInputs {
    std::vector<InputMatrix<T>> owners;
    ResidualArguments<T> arguments;

    Matrix<T> matrix(pybind11::handle value, const char* operation, const char* name) {
        owners.push_back(input_matrix<T>(value, operation, name, -1, *arguments.device));
        const InputMatrix<T>& m = owners.back();
        return {m.data, m.rows, m.columns, m.stride};
    }
    const T* vector(const pybind11::object& value, const char* operation, const char* name) {
        if (pybind11::isinstance<DeviceArray>(value))
            return matrix(pybind11::cast(value.cast<const DeviceArray&>().as_row()), operation, name).data;
        const Dense<T> array = dense<T>(value);
        owners.push_back({array, Memory::host, array.data(), 1, array.size(), array.size()});
        return array.data();
    }
};

template <class T>
BlockInputs<T> block_inputs(const char* operation, const pybind11::list& sources, const pybind11::list& weights,
                            const pybind11::object& bias, const pybind11::list& identity, const std::string& activation,
                            Device& device = host_device()) {
    BlockInputs<T> in;
    ResidualArguments<T>& arguments = in.arguments;
    arguments.device = &device;
    for (pybind11::handle a : sources) arguments.sources.push_back(in.matrix(a, operation, "sources"));
    for (pybind11::handle w : weights) arguments.weights.push_back(in.matrix(w, operation, "weights"));
    for (pybind11::handle a : identity) arguments.identity.push_back(in.matrix(a, operation, "identity"));
    if (!bias.is_none()) arguments.bias = in.vector(bias, operation, "bias");
    arguments.rows = arguments.sources.at(0).rows;
    arguments.columns = arguments.weights.at(0).columns;
    arguments.activation = find_activation(activation);
    if (arguments.activation < 0)
        throw ValueError(std::string(operation) + ": unknown activation '" + activation + "'");
    return in;
}

}  // namespace resnetcore

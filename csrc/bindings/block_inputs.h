// The arguments that all functions of the block have, as Python gives them, where one device's kernels read them. A GPU
// may still be copying what it could not read in place: a StreamOrder around these sees to that.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
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
        Device& device = *arguments.device;
        owners.push_back(pybind11::isinstance<DeviceArray>(value)
                             ? pending_matrix<T>(device_matrix(value, operation, name, -1, device))
                             : input_matrix<T>(value, operation, name, -1, device));
        const InputMatrix<T>& m = owners.back();
        return {m.data, m.rows, m.columns, m.stride};
    }
    // One on a GPU whose columns are contiguous, as PyTorch's weights seen from here, is read where it lies, too.
    Matrix<T> weight(pybind11::handle value, const char* operation) {
        if (!pybind11::isinstance<DeviceArray>(value)) return matrix(value, operation, "weights");
        const DeviceArray& given = device_matrix(value, operation, "weights", -1, *arguments.device);
        if (given.strides[0] != 1 || given.strides[1] == 1) return matrix(value, operation, "weights");
        Matrix<T> m = matrix(pybind11::cast(given.transposed()), operation, "weights");
        std::swap(m.rows, m.columns);
        m.is_transposed = true;
        return m;
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
    for (pybind11::handle w : weights) arguments.weights.push_back(in.weight(w, operation));
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

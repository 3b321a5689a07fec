// Arrays as the matrices that the kernels read: NumPy's, and those in a GPU's memory. Other kinds of array become one
// of these in Python, without a copy (python/resnetcore/arrays.py, device_arrays.py).
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/device_array.h"
#include "math/bfloat16.h"

// NumPy has no bfloat16. In this package's arrays it is a record of that one field, which nothing but this package
// makes or reads: python/resnetcore/arrays.py looks at other libraries' bfloat16 as this, and at this as theirs.
template <>
struct pybind11::detail::npy_format_descriptor<resnetcore::bfloat16> {
    static constexpr auto name = const_name("bfloat16");
    static pybind11::dtype dtype();
};

namespace resnetcore {

template <class T>
using Dense = pybind11::array_t<T, pybind11::array::c_style | pybind11::array::forcecast>;

// The array itself where it is one of T, aligned and in C order; else a copy, in which what T cannot hold is infinite.
template <class T>
Dense<T> dense(const pybind11::array& array);

// Whether it is NumPy's own kind of array, and of no class that is made of it.
bool is_exactly_numpys(pybind11::handle value);

// An array of floating-point numbers in native byte order, of any shape.
struct InputArray {
    pybind11::array numpy;
    std::vector<std::int64_t> shape;
};
InputArray input_array(pybind11::handle value, const char* operation, const char* argument);

// A matrix of T: the caller's memory where its rows are contiguous and aligned, else a copy where that is. Keeps its
// owner alive.
template <class T>
struct InputMatrix {
    pybind11::object owner;
    Memory in = Memory::host;
    const T* data = nullptr;
    std::int64_t rows = 0, columns = 0, stride = 0;
};

// `columns` of −1 takes any number. Other precisions are converted once, but nothing becomes a bfloat16. A DeviceArray
// must be on `device`.
template <class T>
InputMatrix<T> input_matrix(pybind11::handle value, const char* operation, const char* argument, std::int64_t columns,
                            const Device& device = host_device());

// Whether it is such a matrix that nothing has to be done to: a DeviceArray on `device` with contiguous rows of T, or
// exactly NumPy's own kind, in C order. What else is good is for others to find out, who say what is wrong.
template <class T>
bool is_plain_matrix(pybind11::handle value, std::int64_t columns, const Device& device);

// As `input_matrix` of an array that `device_matrix` has checked, but that nobody has waited for the copy, where there
// is one: for a call whose work is waited for or ordered in any case, be it refused (runtime/stream_order.h).
template <class T>
InputMatrix<T> pending_matrix(const DeviceArray& array);

// A GPU's matrix as it is, of any kind of float; checked as `input_matrix` checks it.
const DeviceArray& device_matrix(pybind11::handle value, const char* operation, const char* argument,
                                 std::int64_t columns, const Device& device);

extern template Dense<float> dense<float>(const pybind11::array&);
extern template Dense<double> dense<double>(const pybind11::array&);
extern template Dense<bfloat16> dense<bfloat16>(const pybind11::array&);
extern template Dense<std::int64_t> dense<std::int64_t>(const pybind11::array&);
extern template bool is_plain_matrix<float>(pybind11::handle, std::int64_t, const Device&);
extern template bool is_plain_matrix<double>(pybind11::handle, std::int64_t, const Device&);
extern template InputMatrix<float> pending_matrix<float>(const DeviceArray&);
extern template InputMatrix<double> pending_matrix<double>(const DeviceArray&);
extern template InputMatrix<bfloat16> pending_matrix<bfloat16>(const DeviceArray&);
extern template InputMatrix<float> input_matrix<float>(pybind11::handle, const char*, const char*, std::int64_t,
                                                       const Device&);
extern template InputMatrix<double> input_matrix<double>(pybind11::handle, const char*, const char*, std::int64_t,
                                                         const Device&);
extern template InputMatrix<bfloat16> input_matrix<bfloat16>(pybind11::handle, const char*, const char*, std::int64_t,
                                                             const Device&);

}  // namespace resnetcore

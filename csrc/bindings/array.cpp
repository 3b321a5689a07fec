#include "bindings/array.h"

#include "base/error.h"
#include "base/text.h"

namespace py = pybind11;

py::dtype py::detail::npy_format_descriptor<resnetcore::bfloat16>::dtype() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::dtype> once;
    return once
        .call_once_and_store_result([] {
            py::list names, formats, offsets;
            names.append(name.text);
            formats.append("u2");
            offsets.append(0);
            return py::dtype::from_args(py::dict(py::arg("names") = names, py::arg("formats") = formats,
                                                 py::arg("offsets") = offsets, py::arg("aligned") = true));
        })
        .get_stored();
}

namespace resnetcore {
namespace {

std::string text(py::handle value) { return py::str(value).cast<std::string>(); }

// Rows that the kernels can read in place: whole elements apart, aligned, each row contiguous.
template <class T>
bool readable_in_place(const py::array& a) {
    const auto item = static_cast<py::ssize_t>(sizeof(T));
    return py::isinstance<py::array_t<T>>(a) && reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) == 0 &&
           (a.strides(1) == item || a.shape(1) <= 1) && a.strides(0) % item == 0;
}

bool is_floating(const py::array& a) { return a.dtype().byteorder() != '>' && a.dtype().kind() == 'f'; }
bool is_bfloat16(const py::array& a) { return py::isinstance<py::array_t<bfloat16>>(a); }

InputArray array_that(bool (*holds)(const py::array&), py::handle value, const char* operation, const char* argument,
                      const char* expected, const char* remedy) {
    const std::string what = std::string(operation) + ": " + argument;
    const py::array array = py::array::ensure(value);
    if (!array) {
        PyErr_Clear();
        throw DTypeError(what + " must be an array, got " + text(py::type::handle_of(value)));
    }
    if (!holds(array))
        throw DTypeError(what + " must hold " + expected + ", got dtype " + text(array.dtype()) +
                         "; convert it with .astype(" + remedy + ")");
    return {array, std::vector<std::int64_t>(array.shape(), array.shape() + array.ndim())};
}

}  // namespace

InputArray input_array(py::handle value, const char* operation, const char* argument) {
    return array_that(is_floating, value, operation, argument, "floating-point numbers in native byte order",
                      "\"float32\"");
}

template <class T>
Dense<T> dense(const py::array& array) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0;
    if (aligned && py::isinstance<Dense<T>>(array)) return Dense<T>(array);
    const py::module_ numpy = py::module_::import("numpy");
    const py::object quiet = numpy.attr("errstate")(py::arg("over") = "ignore", py::arg("invalid") = "ignore");
    return quiet(numpy.attr("array"))(array, py::dtype::of<T>(), py::arg("order") = "C");
}

template <class T>
InputMatrix<T> input_matrix(py::handle value, const char* operation, const char* argument, std::int64_t columns) {
    const InputArray input = computes_itself<T>
                                 ? input_array(value, operation, argument)
                                 : array_that(is_bfloat16, value, operation, argument, "bfloat16", "\"bfloat16\"");
    if (input.shape.size() != 2 || (columns >= 0 && input.shape[1] != columns))
        throw ShapeError(std::string(operation) + ": " + argument + " must be (batch, " +
                         (columns >= 0 ? std::to_string(columns) : "width") + "), got " + shape_text(input.shape));
    InputMatrix<T> matrix;
    matrix.owner = input.numpy;
    if (!readable_in_place<T>(matrix.owner)) matrix.owner = dense<T>(input.numpy);
    matrix.data = static_cast<const T*>(matrix.owner.data());
    matrix.rows = input.shape[0];
    matrix.columns = input.shape[1];
    matrix.stride = matrix.owner.strides(0) / static_cast<py::ssize_t>(sizeof(T));
    return matrix;
}

template Dense<float> dense<float>(const py::array&);
template Dense<double> dense<double>(const py::array&);
template Dense<bfloat16> dense<bfloat16>(const py::array&);
template Dense<std::int64_t> dense<std::int64_t>(const py::array&);
template InputMatrix<float> input_matrix<float>(py::handle, const char*, const char*, std::int64_t);
template InputMatrix<double> input_matrix<double>(py::handle, const char*, const char*, std::int64_t);
template InputMatrix<bfloat16> input_matrix<bfloat16>(py::handle, const char*, const char*, std::int64_t);

}  // namespace resnetcore

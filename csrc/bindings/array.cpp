#include "bindings/array.h"

#include "base/error.h"
#include "base/text.h"
#include "bindings/without_gil.h"
#include "runtime/aligned.h"
#include "runtime/gathered.h"

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

void check_matrix(const std::vector<std::int64_t>& shape, const char* operation, const char* argument,
                  std::int64_t columns) {
    if (shape.size() != 2 || (columns >= 0 && shape[1] != columns))
        throw ShapeError(std::string(operation) + ": " + argument + " must be (batch, " +
                         (columns >= 0 ? std::to_string(columns) : "width") + "), got " + shape_text(shape));
}

template <class T>
bool readable_in_place(const DeviceArray& a) {
    return a.dtype.is(py::dtype::of<T>()) && reinterpret_cast<std::uintptr_t>(a.data) % alignof(T) == 0 &&
           (a.strides[1] == 1 || a.shape[1] <= 1);
}

}  // namespace

template <class T>
bool is_plain_matrix(py::handle value, std::int64_t columns, const Device& device) {
    if (py::isinstance<DeviceArray>(value)) {
        const auto& array = value.cast<const DeviceArray&>();
        return array.device == &device && array.shape.size() == 2 && array.shape[1] == columns &&
               readable_in_place<T>(array);
    }
    if (!is_exactly_numpys(value)) return false;
    const auto array = py::reinterpret_borrow<py::array>(value);
    constexpr int ready =
        static_cast<int>(py::array::c_style) | static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    return array.ndim() == 2 && array.shape(1) == columns && (array.flags() & ready) == ready &&
           py::isinstance<py::array_t<T>>(array);
}

template <class T>
InputMatrix<T> pending_matrix(const DeviceArray& array) {
    DeviceArray read = array;
    if (!readable_in_place<T>(array)) {
        read = DeviceArray::unset(*array.device, py::dtype::of<T>(), array.shape);
        const CurrentDevice current(*array.device);
        GatherArgs args = gathered_from(array);
        if (!computes_itself<T> && args.from_type != gathered_type<T>)
            throw DTypeError("a bfloat16 array is needed, got " + text(array.dtype));
        args.rows = array.shape[0];
        args.columns = array.shape[1];
        AlignedArray<Compute<T>> wide(*array.device);
        args.to = read.data;
        if (!computes_itself<T>) {
            wide.reserve(args.rows * args.columns);
            args.to = wide.data();
        }
        args.to_type = gathered_type<Compute<T>>;
        array.device->gather(args);
        if (!computes_itself<T>)
            array.device->kernels<T>().narrow(args.rows, args.columns, {wide.data(), args.columns},
                                              {reinterpret_cast<T*>(read.data), args.columns}, nullptr);
    }
    InputMatrix<T> matrix;
    matrix.in = Memory::device;
    matrix.data = reinterpret_cast<const T*>(read.data);
    matrix.rows = read.shape[0];
    matrix.columns = read.shape[1];
    matrix.stride = read.strides[0];
    matrix.owner = read.owner;
    return matrix;
}

bool is_exactly_numpys(py::handle value) { return Py_TYPE(value.ptr()) == py::detail::npy_api::get().PyArray_Type_; }

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

const DeviceArray& device_matrix(py::handle value, const char* operation, const char* argument, std::int64_t columns,
                                 const Device& device) {
    const DeviceArray& array = value.cast<DeviceArray&>();
    if (array.device != &device)
        throw DeviceError(std::string(operation) + ": " + argument + " is on " + array.device->name() +
                          ", and the work is done on " + device.name() + "; copy it there");
    check_matrix(array.shape, operation, argument, columns);
    return array;
}

template <class T>
InputMatrix<T> input_matrix(py::handle value, const char* operation, const char* argument, std::int64_t columns,
                            const Device& device) {
    if (py::isinstance<DeviceArray>(value)) {
        const DeviceArray& array = device_matrix(value, operation, argument, columns, device);
        const InputMatrix<T> matrix = pending_matrix<T>(array);
        if (!matrix.owner.is(array.owner)) {
            // What is wrong with other arguments is found later: then, too, the caller's memory is the caller's again.
            const CurrentDevice current(*array.device);
            const WithoutGil release;
            array.device->synchronize();
        }
        return matrix;
    }
    const InputArray input = computes_itself<T>
                                 ? input_array(value, operation, argument)
                                 : array_that(is_bfloat16, value, operation, argument, "bfloat16", "\"bfloat16\"");
    check_matrix(input.shape, operation, argument, columns);
    py::array array = input.numpy;
    if (!readable_in_place<T>(array)) array = dense<T>(input.numpy);
    InputMatrix<T> matrix;
    matrix.data = static_cast<const T*>(array.data());
    matrix.rows = input.shape[0];
    matrix.columns = input.shape[1];
    matrix.stride = array.strides(0) / static_cast<py::ssize_t>(sizeof(T));
    matrix.owner = std::move(array);
    return matrix;
}

template Dense<float> dense<float>(const py::array&);
template Dense<double> dense<double>(const py::array&);
template Dense<bfloat16> dense<bfloat16>(const py::array&);
template Dense<std::int64_t> dense<std::int64_t>(const py::array&);
template bool is_plain_matrix<float>(py::handle, std::int64_t, const Device&);
template bool is_plain_matrix<double>(py::handle, std::int64_t, const Device&);
template InputMatrix<float> pending_matrix<float>(const DeviceArray&);
template InputMatrix<double> pending_matrix<double>(const DeviceArray&);
template InputMatrix<bfloat16> pending_matrix<bfloat16>(const DeviceArray&);
template InputMatrix<float> input_matrix<float>(py::handle, const char*, const char*, std::int64_t, const Device&);
template InputMatrix<double> input_matrix<double>(py::handle, const char*, const char*, std::int64_t, const Device&);
template InputMatrix<bfloat16> input_matrix<bfloat16>(py::handle, const char*, const char*, std::int64_t,
                                                      const Device&);

}  // namespace resnetcore

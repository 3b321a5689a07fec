#include "bindings/batch_arguments.h"

#include "base/error.h"
#include "base/text.h"
#include "bindings/device_array.h"
#include "bindings/without_gil.h"
#include "math/loss.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

std::string shape_of(const py::array& array) { return py::repr(array.attr("shape")).cast<std::string>(); }
std::string dtype_of(const py::array& array) { return py::str(py::object(array.dtype())).cast<std::string>(); }

py::array as_array(py::handle value, const std::string& what) {
    if (py::isinstance<DeviceArray>(value)) return value.cast<DeviceArray&>().numpy();
    const py::array array = py::array::ensure(value);
    if (!array) {
        PyErr_Clear();
        throw DTypeError(what + " must be an array, got " + py::repr(value).cast<std::string>());
    }
    const char order = array.dtype().byteorder();
    if (order == '>') throw DTypeError(what + " must be in native byte order, got " + dtype_of(array));
    return array;
}

std::string rows_text(std::int64_t rows, std::int64_t columns) {
    return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

ShapeError not_labels(std::int64_t rows, const std::string& shape, const std::string& what) {
    return ShapeError(what + " must hold one label a row, shape (" + std::to_string(rows) + ",), got " + shape);
}

Dense<std::int64_t> label_array(const py::array& y, std::int64_t rows, std::int64_t classes, const std::string& what) {
    if (y.ndim() != 1 || y.shape(0) != rows) throw not_labels(rows, shape_of(y), what);
    const Dense<std::int64_t> labels = dense<std::int64_t>(y);
    // Beyond the int64s, an unsigned label would be reported as a negative one.
    for (std::int64_t i = 0; i < rows && y.dtype().kind() == 'u'; ++i)
        if (labels.data()[i] < 0)
            throw ValueError(what + " must hold labels from 0 to " + std::to_string(classes - 1) + ", got " +
                             py::str(y[py::int_(i)]).cast<std::string>() + " in row " + std::to_string(i));
    return labels;
}

template <class T>
Dense<T> value_array(const py::array& y, std::int64_t rows, std::int64_t outputs, const std::string& what) {
    const bool column = outputs == 1 && y.ndim() == 1 && y.shape(0) == rows;
    if (!column && (y.ndim() != 2 || y.shape(0) != rows || y.shape(1) != outputs))
        throw ShapeError(what + " must have shape " + rows_text(rows, outputs) +
                         " (targets are never broadcast), got " + shape_of(y));
    return dense<T>(y);
}

// What needs a conversion or another error than one about its length or numbers is the Python layer's, which has words
// for it.
bool are_plain_targets(py::handle y, const LossSettings& settings) {
    if (!is_exactly_numpys(y)) return false;
    if (!settings.takes_labels()) return true;
    const auto array = py::reinterpret_borrow<py::array>(y);
    const char kind = array.dtype().kind();
    return array.ndim() == (kind == 'i' || kind == 'u' || kind == 'b' ? 1 : 2);
}

bool holds(const DeviceArray& array, GatherArgs::Type type) {
    return array.dtype.kind() == 'i' && array.dtype.itemsize() == (type == GatherArgs::i64 ? 8 : 4);
}

// Whether they can be read where they are, or made int64 there.
bool are_labels_of(const DeviceArray& y, const LossSettings& settings, const Device& device) {
    return settings.takes_labels() && settings.class_weight.empty() && y.device == &device &&
           (holds(y, GatherArgs::i32) || holds(y, GatherArgs::i64));
}

// As `value_array`, of values on the device.
template <class T>
InputMatrix<T> device_values(DeviceArray y, std::int64_t rows, std::int64_t outputs, const char* operation,
                             const Device& device) {
    if (outputs == 1 && y.shape.size() == 1) y.shape.push_back(1), y.strides.push_back(1);
    const InputMatrix<T> values = input_matrix<T>(py::cast(y), operation, "y", outputs, device);
    if (values.rows != rows)
        throw ShapeError(std::string(operation) + ": y must have shape " + rows_text(rows, outputs) +
                         " (targets are never broadcast), got " + rows_text(values.rows, outputs));
    return values;
}

}  // namespace

LossSettings loss_settings(const py::dict& description) {
    LossSettings settings;
    settings.loss = find_loss(description["name"].cast<std::string>());
    settings.label_smoothing = description["label_smoothing"].cast<double>();
    settings.delta = description["delta"].cast<double>();
    if (const py::object weights = description["class_weight"]; !weights.is_none()) {
        const Dense<double> values = dense<double>(weights);
        settings.class_weight.assign(values.data(), values.data() + values.size());
    }
    return settings;
}

template <class T>
Targets<T>::Targets(py::handle y, py::handle sample_weight, const LossSettings& settings, std::int64_t rows,
                    std::int64_t outputs, const char* operation, const Device& device, LabelsThere labels) {
    GivenTargets<T> given;
    const auto* const there = py::isinstance<DeviceArray>(y) ? &y.cast<const DeviceArray&>() : nullptr;
    if (there && labels == LabelsThere::are_looked_at_later && are_labels_of(*there, settings, device)) {
        take_labels(*there, rows, operation, given);
    } else if (there && !settings.takes_probabilities()) {
        const auto values = device_values<Compute<T>>(*there, rows, outputs, operation, device);
        given.values = {values.data, values.stride};
        y_ = values.owner;
        given.in = Memory::device;
    } else {
        take_from_host(y, settings, rows, outputs, operation, given);
    }
    if (!sample_weight.is_none()) {
        const std::string what = std::string(operation) + ": sample_weight";
        const py::array weights = as_array(sample_weight, what);
        if (weights.ndim() != 1 || weights.shape(0) != rows)
            throw ShapeError(what + " must have shape (" + std::to_string(rows) + ",), got " + shape_of(weights));
        const Dense<Compute<T>> read = dense<Compute<T>>(weights);
        given.sample_weight = read.data();
        sample_weight_ = read;
    }
    checked_ = std::make_unique<const CheckedTargets<T>>(given, settings, rows, outputs, operation);
}

template <class T>
void Targets<T>::take_labels(const DeviceArray& y, std::int64_t rows, const char* operation, GivenTargets<T>& given) {
    if (y.shape.size() != 1 || y.shape[0] != rows)
        throw not_labels(rows, shape_text(y.shape), std::string(operation) + ": y");
    DeviceArray read = y;
    if (!holds(y, GatherArgs::i64) || !y.is_dense()) {
        read = DeviceArray::unset(*y.device, py::dtype::of<std::int64_t>(), y.shape);
        GatherArgs args;
        args.rows = 1, args.columns = rows;
        args.from = y.data, args.from_type = holds(y, GatherArgs::i64) ? GatherArgs::i64 : GatherArgs::i32;
        args.column_stride = y.strides[0];
        args.to = read.data, args.to_type = GatherArgs::i64;
        const CurrentDevice current(*y.device);
        const WithoutGil release;
        y.device->gather(args);
        y.device
            ->synchronize();  // also where another argument is found to be wrong, the caller's memory is the caller's
    }
    y_ = read.owner;
    given.labels = reinterpret_cast<const std::int64_t*>(read.data);
    given.in = Memory::device;
}

template <class T>
void Targets<T>::take_from_host(py::handle y, const LossSettings& settings, std::int64_t rows, std::int64_t outputs,
                                const char* operation, GivenTargets<T>& given) {
    const std::string where = std::string(operation) + ": ";
    const py::array array = as_array(y, where + "y");
    const char kind = array.dtype().kind();
    const bool whole = kind == 'i' || kind == 'u' || kind == 'b';
    if (!whole && kind != 'f')
        throw DTypeError(where + "y must be numbers, got dtype " + dtype_of(array) +
                         "; names of classes become labels by numpy.unique(y, return_inverse=True)[1]");
    if (settings.takes_labels() && !whole && array.ndim() == 1)
        throw DTypeError(where + "y must hold integer labels, got dtype " + dtype_of(array));
    if (settings.takes_labels() && whole) {
        const Dense<std::int64_t> labels = label_array(array, rows, outputs, where + "y");
        given.labels = labels.data();
        y_ = labels;
    } else {
        const Dense<Compute<T>> values = value_array<Compute<T>>(array, rows, outputs, where + "y");
        given.values = {values.data(), outputs};
        y_ = values;
    }
}

template <class C>
bool are_plain(py::handle x, py::handle y, const LossSettings& settings, std::int64_t inputs, std::int64_t outputs,
               const Device& device) {
    if (!is_plain_matrix<C>(x, inputs, device)) return false;
    if (!py::isinstance<DeviceArray>(x)) return are_plain_targets(y, settings);
    if (!py::isinstance<DeviceArray>(y)) return false;
    const std::int64_t rows = x.cast<const DeviceArray&>().shape[0];
    const auto& there = y.cast<const DeviceArray&>();
    if (rows == 0) return false;
    if (are_labels_of(there, settings, device)) return outputs > 1 && there.shape == std::vector{rows};
    return !settings.takes_probabilities() && there.device == &device && there.dtype.is(py::dtype::of<C>()) &&
           (there.shape == std::vector{rows, outputs} || (outputs == 1 && there.shape == std::vector{rows}));
}

py::object sample_weight_of(const py::dict& loss) {
    return loss.contains("sample_weight") ? py::object(loss["sample_weight"]) : py::none();
}

template bool are_plain<float>(py::handle, py::handle, const LossSettings&, std::int64_t, std::int64_t, const Device&);
template bool are_plain<double>(py::handle, py::handle, const LossSettings&, std::int64_t, std::int64_t, const Device&);
template class Targets<float>;
template class Targets<double>;
template class Targets<bfloat16>;
template class Targets<bfloat16x2>;

}  // namespace resnetcore

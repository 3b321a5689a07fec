#include "bindings/batch_arguments.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "math/loss.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

std::string shape_of(const py::array& array) { return py::repr(array.attr("shape")).cast<std::string>(); }
std::string dtype_of(const py::array& array) { return py::str(py::object(array.dtype())).cast<std::string>(); }

py::array as_array(py::handle value, const std::string& what) {
    const py::array array = py::array::ensure(value);
    if (!array) {
        PyErr_Clear();
        throw DTypeError(what + " must be an array, got " + py::repr(value).cast<std::string>());
    }
    const char order = array.dtype().byteorder();
    if (order == '>') throw DTypeError(what + " must be in native byte order, got " + dtype_of(array));
    return array;
}

bool takes_labels(int loss) { return std::string(loss_name(loss)) == "cross_entropy"; }
bool is_binary(int loss) { return std::string(loss_name(loss)) == "binary_cross_entropy"; }

std::string rows_text(std::int64_t rows, std::int64_t columns) {
    return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

Dense<std::int64_t> checked_labels(const py::array& y, std::int64_t rows, std::int64_t classes,
                                   const std::string& what) {
    if (y.ndim() != 1 || y.shape(0) != rows)
        throw ShapeError(what + " must hold one label a row, shape (" + std::to_string(rows) + ",), got " +
                         shape_of(y));
    const Dense<std::int64_t> labels = dense<std::int64_t>(y);
    for (std::int64_t i = 0; i < rows; ++i)
        if (labels.data()[i] < 0 || labels.data()[i] >= classes)
            throw ValueError(what + " must hold labels from 0 to " + std::to_string(classes - 1) + ", got " +
                             py::str(y[py::int_(i)]).cast<std::string>() + " in row " + std::to_string(i));
    return labels;
}

template <class T>
Dense<T> checked_values(const py::array& y, std::int64_t rows, std::int64_t outputs, const std::string& what) {
    const bool column = outputs == 1 && y.ndim() == 1 && y.shape(0) == rows;
    if (!column && (y.ndim() != 2 || y.shape(0) != rows || y.shape(1) != outputs))
        throw ShapeError(what + " must have shape " + rows_text(rows, outputs) +
                         " (targets are never broadcast), got " + shape_of(y));
    return dense<T>(y);
}

template <class T>
void check_range(const Dense<T>& values, const std::string& what) {
    for (py::ssize_t i = 0; i < values.size(); ++i) {
        const T v = values.data()[i];
        if (!(v >= 0 && v <= 1)) throw ValueError(what + " must be probabilities in [0, 1], got " + number_text(v));
    }
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
                    std::int64_t outputs, const char* operation)
    : loss_(settings.loss), outputs_(outputs) {
    const std::string where = std::string(operation) + ": ";
    const py::array array = as_array(y, where + "y");
    const char kind = array.dtype().kind();
    const bool whole = kind == 'i' || kind == 'u' || kind == 'b';
    if (!whole && kind != 'f')
        throw DTypeError(where + "y must be numbers, got dtype " + dtype_of(array) +
                         "; names of classes become labels by numpy.unique(y, return_inverse=True)[1]");
    if (takes_labels(loss_) && !whole && array.ndim() == 1)
        throw DTypeError(where + "y must hold integer labels, got dtype " + dtype_of(array));
    if (takes_labels(loss_) && outputs == 1)
        throw ShapeError(where +
                         "y: cross_entropy needs two outputs or more, the network has 1; use binary_cross_entropy");
    if (takes_labels(loss_) && whole) {
        labels_ = checked_labels(array, rows, outputs, where + "y");
        target_.labels = labels_.data();
    } else {
        values_ = checked_values<Compute<T>>(array, rows, outputs, where + "y");
        if (takes_labels(loss_) || is_binary(loss_)) check_range(values_, where + "y");
        target_.targets = {values_.data(), outputs};
    }
    target_.loss = loss_;
    target_.label_smoothing = settings.label_smoothing;
    target_.delta = settings.delta;
    class_weight_.assign(settings.class_weight.begin(), settings.class_weight.end());
    target_.class_weights = static_cast<std::int64_t>(class_weight_.size());
    if (!class_weight_.empty()) target_.class_weight = class_weight_.data();
    target_.normaliser = &normaliser_;
    if (!sample_weight.is_none()) {
        const py::array weights = as_array(sample_weight, where + "sample_weight");
        if (weights.ndim() != 1 || weights.shape(0) != rows)
            throw ShapeError(where + "sample_weight must have shape (" + std::to_string(rows) + ",), got " +
                             shape_of(weights));
        sample_weight_ = dense<Compute<T>>(weights);
        for (std::int64_t i = 0; i < rows; ++i)
            if (const Compute<T> w = sample_weight_.data()[i]; !(w >= 0 && std::isfinite(w)))
                throw ValueError(where + "sample_weight must be finite and not negative, got " + number_text(w));
        target_.sample_weight = sample_weight_.data();
    }
    set_normaliser(rows, where);
}

// PyTorch's means: over rows, weighted by class for labels; over all elements for everything but cross_entropy. Where
// nothing has a weight there is no mean: the loss and its gradient are zero (PyTorch's are NaN).
template <class T>
void Targets<T>::set_normaliser(std::int64_t rows, const std::string& where) {
    for (std::int64_t i = 0; i < rows; ++i) {
        const double sample = target_.sample_weight ? target_.sample_weight[i] : 1;
        const double by_class = target_.labels && target_.class_weight ? target_.class_weight[target_.labels[i]] : 1;
        weight_ += sample * by_class;
    }
    const double total = takes_labels(loss_) ? weight_ : weight_ * static_cast<double>(outputs_);
    normaliser_ = total > 0 ? 1 / total : 0;
    if (!std::isfinite(normaliser_))
        throw ValueError(where + "the weights of the batch sum to " + number_text(total) + ", too little to divide by");
}

void check_training_rows(const Topology& topology, std::int64_t rows, std::int64_t micro_batches,
                         const char* operation) {
    const std::string where = std::string(operation) + ": ";
    if (rows == 0) throw ShapeError(where + "a training batch needs at least one row, got 0");
    if (rows < micro_batches)
        throw ShapeError(where + "accumulate=" + std::to_string(micro_batches) +
                         " cuts the batch into as many parts; it has " + std::to_string(rows) + " rows");
    const bool norms = std::any_of(topology.layers.begin(), topology.layers.end(),
                                   [](const Layer& layer) { return layer.batch_norm; });
    if (norms && rows / micro_batches < 2)
        throw ShapeError(where + "batch normalisation needs at least 2 rows in every (micro-)batch, got " +
                         std::to_string(rows / micro_batches));
}

py::object sample_weight_of(const py::dict& loss) {
    return loss.contains("sample_weight") ? py::object(loss["sample_weight"]) : py::none();
}

NonFiniteError non_finite(const PassResult& result, const char* operation, std::int64_t step) {
    std::string text = std::string(operation) + ": ";
    text += result.overflow.empty() ? "the loss became " + number_text(result.loss)
                                    : "the update makes '" + result.overflow + "' NaN or infinite";
    if (step > 0) text += " at step " + std::to_string(step);
    if (result.bad_layer == 0) text += "; the first layer with NaN or infinite values is layer 0, the input";
    if (result.bad_layer > 0)
        text += "; the first layer with NaN or infinite values is layer " + std::to_string(result.bad_layer);
    return NonFiniteError(text + ". Nothing was updated; try a smaller lr, clip_norm, or a norm");
}

template class Targets<float>;
template class Targets<double>;
template class Targets<bfloat16>;
template class Targets<bfloat16x2>;

}  // namespace resnetcore

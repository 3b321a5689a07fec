#include "train/targets.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "math/loss.h"

namespace resnetcore {
namespace {

void check_labels(const std::int64_t* labels, std::int64_t rows, std::int64_t classes, const std::string& operation) {
    for (std::int64_t i = 0; i < rows; ++i)
        if (labels[i] < 0 || labels[i] >= classes)
            throw ValueError(operation + ": y must hold labels from 0 to " + std::to_string(classes - 1) + ", got " +
                             std::to_string(labels[i]) + " in row " + std::to_string(i));
}

template <class T>
void check_probabilities(Rows<T> values, std::int64_t rows, std::int64_t columns, const std::string& operation) {
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j)
            if (const T v = values.data[i * values.stride + j]; !(v >= 0 && v <= 1))
                throw ValueError(operation + ": y must be probabilities in [0, 1], got " + number_text(v));
}

template <class T>
void check_sample_weight(const T* weights, std::int64_t rows, const std::string& operation) {
    for (std::int64_t i = 0; i < rows; ++i)
        if (!(weights[i] >= 0 && std::isfinite(weights[i])))
            throw ValueError(operation + ": sample_weight must be finite and not negative, got " +
                             number_text(weights[i]));
}

}  // namespace

bool LossSettings::takes_labels() const { return std::string(loss_name(loss)) == "cross_entropy"; }

bool LossSettings::takes_probabilities() const {
    return takes_labels() || std::string(loss_name(loss)) == "binary_cross_entropy";
}

void check_loss(const LossSettings& settings, const std::string& operation) {
    const double smoothing = settings.label_smoothing;
    if (!(smoothing >= 0 && smoothing < 1))
        throw ValueError(operation + ": label_smoothing must be in [0, 1), got " + number_text(smoothing));
    if (smoothing != 0 && !settings.takes_labels())
        throw ValueError(operation + ": label_smoothing belongs to cross_entropy, not to " + loss_name(settings.loss));
    if (!(settings.delta > 0 && std::isfinite(settings.delta)))
        throw ValueError(operation + ": delta must be positive and finite, got " + number_text(settings.delta));
}

void check_class_count(const LossSettings& settings, std::int64_t count, std::int64_t outputs,
                       const std::string& operation) {
    if (!settings.takes_probabilities())
        throw ValueError(operation + ": class_weight belongs to cross_entropy and binary_cross_entropy, not to " +
                         loss_name(settings.loss));
    const std::int64_t classes = settings.takes_labels() ? outputs : 2;
    if (count != classes)
        throw ShapeError(operation + ": class_weight must have " + std::to_string(classes) +
                         " weights, one a class, got " + std::to_string(count));
}

template <class T>
void check_class_weight(const LossSettings& settings, std::int64_t outputs, const std::string& operation) {
    const std::vector<double>& weights = settings.class_weight;
    if (weights.empty()) return;
    check_class_count(settings, static_cast<std::int64_t>(weights.size()), outputs, operation);
    for (const double weight : weights)
        if (!(weight >= 0 && std::isfinite(weight)))
            throw ValueError(operation + ": class_weight must be finite and not negative, got " + number_text(weight));
    const double largest = *std::max_element(weights.begin(), weights.end());
    const auto rounded = static_cast<Compute<T>>(largest);
    if (largest > 0 && !(rounded > 0 && std::isfinite(rounded)))
        throw ValueError(operation +
                         ": class_weight must have its largest weight in the range of the network's dtype, "
                         "got " +
                         number_text(largest) + "; divide the weights by their mean");
}

template <class T>
CheckedTargets<T>::CheckedTargets(const GivenTargets<T>& given, const LossSettings& settings, std::int64_t rows,
                                  std::int64_t outputs, const std::string& operation)
    : rows_(rows),
      outputs_(outputs),
      operation_(operation),
      class_weight_(settings.class_weight.begin(), settings.class_weight.end()) {
    if (settings.takes_labels() && outputs == 1)
        throw ShapeError(operation +
                         ": y: cross_entropy needs two outputs or more, the network has 1; use binary_cross_entropy");
    if (given.labels && given.in == Memory::host)
        check_labels(given.labels, rows, outputs, operation);
    else if (!given.labels && settings.takes_probabilities())
        check_probabilities(given.values, rows, outputs, operation);
    if (given.sample_weight) check_sample_weight(given.sample_weight, rows, operation);
    target_.loss = settings.loss;
    target_.labels = given.labels;
    target_.targets = given.values;
    in_ = given.in;
    target_.sample_weight = given.sample_weight;
    target_.label_smoothing = settings.label_smoothing;
    target_.delta = settings.delta;
    target_.class_weights = static_cast<std::int64_t>(class_weight_.size());
    if (!class_weight_.empty()) target_.class_weight = class_weight_.data();
    target_.normaliser = &normaliser_;
    set_normaliser(rows, outputs, settings.takes_labels(), operation);
}

template <class T>
void CheckedTargets<T>::check_labels_on(Device& device) const {
    if (!target_.labels || in_ == Memory::host) return;
    std::vector<std::int64_t> labels(static_cast<std::size_t>(rows_));
    device.download(labels.data(), target_.labels, labels.size() * sizeof labels[0]);
    check_labels(labels.data(), rows_, outputs_, operation_);
}

// PyTorch's means: over rows, weighted by class for labels; over all elements for everything but cross_entropy. Where
// nothing has a weight there is no mean: the loss and its gradient are zero (PyTorch's are NaN).
template <class T>
void CheckedTargets<T>::set_normaliser(std::int64_t rows, std::int64_t outputs, bool by_rows,
                                       const std::string& operation) {
    const bool by_class = target_.labels && target_.class_weight;
    weight_ = static_cast<double>(rows);
    if (target_.sample_weight || by_class) {  // else the sum is known, and a large batch on a GPU waits for no loop
        weight_ = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            weight_ += (target_.sample_weight ? target_.sample_weight[i] : 1.0) *
                       (by_class ? target_.class_weight[target_.labels[i]] : 1.0);
    }
    const double total = by_rows ? weight_ : weight_ * static_cast<double>(outputs);
    normaliser_ = total > 0 ? 1 / total : 0;
    if (!std::isfinite(normaliser_))
        throw ValueError(operation + ": the weights of the batch sum to " + number_text(total) +
                         ", too little to divide by");
}

void check_training_rows(const Topology& topology, std::int64_t rows, std::int64_t micro_batches,
                         const std::string& operation) {
    if (rows == 0) throw ShapeError(operation + ": a training batch needs at least one row, got 0");
    if (rows < micro_batches)
        throw ShapeError(operation + ": accumulate=" + std::to_string(micro_batches) +
                         " cuts the batch into as many parts; it has " + std::to_string(rows) + " rows");
    const bool norms = std::any_of(topology.layers.begin(), topology.layers.end(),
                                   [](const Layer& layer) { return layer.batch_norm; });
    if (norms && rows / micro_batches < 2)
        throw ShapeError(operation + ": batch normalisation needs at least 2 rows in every (micro-)batch, got " +
                         std::to_string(rows / micro_batches));
}

template void check_class_weight<float>(const LossSettings&, std::int64_t, const std::string&);
template void check_class_weight<double>(const LossSettings&, std::int64_t, const std::string&);
template void check_class_weight<bfloat16>(const LossSettings&, std::int64_t, const std::string&);
template void check_class_weight<bfloat16x2>(const LossSettings&, std::int64_t, const std::string&);
template class CheckedTargets<float>;
template class CheckedTargets<double>;
template class CheckedTargets<bfloat16>;
template class CheckedTargets<bfloat16x2>;

}  // namespace resnetcore

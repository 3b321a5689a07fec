// Inputs and targets of a batch, taken from Python and checked, in the form the training code reads.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/array.h"
#include "train/backpropagation.h"

namespace resnetcore {

// The loss as resnetcore.losses.Loss, which checks it, describes it.
struct LossSettings {
    int loss = 0;
    double label_smoothing = 0, delta = 1;
    std::vector<double> class_weight;
};
LossSettings loss_settings(const pybind11::dict& description);

// Targets of `rows` rows; keeps alive what it reads, a copy where the caller's array is not of its kind. Labels where
// the loss takes them, else values (rows, outputs).
template <class T>
class Targets {
public:
    Targets(const Targets&) = delete;
    Targets(pybind11::handle y, pybind11::handle sample_weight, const LossSettings& settings, std::int64_t rows,
            std::int64_t outputs, const char* operation);

    // As the kernels read them, in the host's memory. Points into this object.
    const LossTarget<T>& get() const { return target_; }
    // What the mean over the rows is divided by: Σ weights, or their number.
    double weight() const { return weight_; }

private:
    void set_normaliser(std::int64_t rows, const std::string& where);

    int loss_;
    std::int64_t outputs_;
    LossTarget<T> target_;
    double weight_ = 0, normaliser_ = 1;  // the second: 1 / Σ weights
    Dense<std::int64_t> labels_;
    Dense<Compute<T>> values_, sample_weight_;
    std::vector<Compute<T>> class_weight_;
};

// A batch that training can use: rows for every micro-batch, two where batch normalisation needs a variance.
void check_training_rows(const Topology& topology, std::int64_t rows, std::int64_t micro_batches,
                         const char* operation);

// loss["sample_weight"], or None.
pybind11::object sample_weight_of(const pybind11::dict& loss);

// The FloatingPointError of a pass whose loss is NaN or infinite; `step` is 0 where no step is counted.
NonFiniteError non_finite(const PassResult& result, const char* operation, std::int64_t step = 0);

extern template class Targets<float>;
extern template class Targets<double>;
extern template class Targets<bfloat16>;
extern template class Targets<bfloat16x2>;

}  // namespace resnetcore

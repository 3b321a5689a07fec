// Inputs and targets of a batch, taken from Python and checked, in the form the training code reads.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/array.h"
#include "train/targets.h"

namespace resnetcore {

// The loss as resnetcore.losses.Loss, which checks it, describes it.
LossSettings loss_settings(const pybind11::dict& description);

// Targets as Python gives them, checked; keeps alive what it reads, a copy where the caller's array is not of its kind.
// Labels where the loss takes them, else values (rows, outputs). Of arrays in a GPU's memory, values that need no check
// are read in place on `device`, and so are labels (int32 or int64, without class weights) where the caller looks at
// them when they have made the loss NaN; all else is copied to the host, and what was checked there is what the kernels
// read.
enum class LabelsThere { are_copied, are_looked_at_later };
template <class T>
class Targets {
public:
    Targets(pybind11::handle y, pybind11::handle sample_weight, const LossSettings& settings, std::int64_t rows,
            std::int64_t outputs, const char* operation, const Device& device,
            LabelsThere labels = LabelsThere::are_copied);

    const CheckedTargets<T>& checked() const { return *checked_; }

private:
    void take_labels(const DeviceArray& y, std::int64_t rows, const char* operation, GivenTargets<T>& given);
    void take_from_host(pybind11::handle y, const LossSettings& settings, std::int64_t rows, std::int64_t outputs,
                        const char* operation, GivenTargets<T>& given);

    pybind11::object y_, sample_weight_;  // what keeps them alive
    std::unique_ptr<const CheckedTargets<T>> checked_;
};

// Whether a step reads x and y where they lie, or finds itself what is wrong with y: two DeviceArrays on `device` that
// fit together and need no check of their elements, x of C; or two of NumPy's own kind. What else is good is for others
// to find out, who say what is wrong.
template <class C>
bool are_plain(pybind11::handle x, pybind11::handle y, const LossSettings& settings, std::int64_t inputs,
               std::int64_t outputs, const Device& device);

// loss["sample_weight"], or None.
pybind11::object sample_weight_of(const pybind11::dict& loss);

extern template bool are_plain<float>(pybind11::handle, pybind11::handle, const LossSettings&, std::int64_t,
                                      std::int64_t, const Device&);
extern template bool are_plain<double>(pybind11::handle, pybind11::handle, const LossSettings&, std::int64_t,
                                       std::int64_t, const Device&);
extern template class Targets<float>;
extern template class Targets<double>;
extern template class Targets<bfloat16>;
extern template class Targets<bfloat16x2>;

}  // namespace resnetcore

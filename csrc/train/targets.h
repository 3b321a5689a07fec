// What a loss may be told, and what a batch's targets must be for it: checked whole before anything runs.
#pragma once

#include <string>
#include <vector>

#include "runtime/frame.h"
#include "runtime/staged.h"
#include "topology/layer.h"

namespace resnetcore {

struct LossSettings {
    int loss = 0;  // index into Losses
    double label_smoothing = 0, delta = 1;
    std::vector<double> class_weight;

    bool takes_labels() const;         // classes, or their probabilities
    bool takes_probabilities() const;  // where it is not given labels
};

// Throws ValueError, beginning with `operation`.
void check_loss(const LossSettings& settings, const std::string& operation);
// Of a network of so many outputs: that a loss takes class weights, and so many. Throws as the following.
void check_class_count(const LossSettings& settings, std::int64_t count, std::int64_t outputs,
                       const std::string& operation);
// Throws ShapeError or ValueError, beginning with `operation`.
template <class T>
void check_class_weight(const LossSettings& settings, std::int64_t outputs, const std::string& operation);

// A batch's targets where they lie: labels (rows), or else values (rows, outputs); and weights (rows), or null.
template <class T>
struct GivenTargets {
    const std::int64_t* labels = nullptr;
    Rows<Compute<T>> values;
    // Labels or values, the weights being the host's. What is a device's is not looked at: values of a loss that takes
    // any numbers, labels without class weights, whose loss is NaN where they are no classes.
    Memory in = Memory::host;
    const Compute<T>* sample_weight = nullptr;
};

// The same, checked, as the kernels read them. What was given stays the caller's.
template <class T>
class CheckedTargets {
public:
    // Throws ShapeError, DTypeError or ValueError, beginning with `operation` and naming y or sample_weight.
    CheckedTargets(const GivenTargets<T>& given, const LossSettings& settings, std::int64_t rows, std::int64_t outputs,
                   const std::string& operation);
    CheckedTargets(const CheckedTargets&) = delete;

    // Points into this object; `normaliser` is 1 / Σ weights.
    const LossTarget<T>& get() const { return target_; }
    Memory in() const { return in_; }  // labels or values
    // For a pass whose loss was NaN: throws the ValueError that labels in the memory of `device`, which is the calling
    // thread's, have not been given yet.
    void check_labels_on(Device& device) const;
    // What the mean over the rows is divided by: Σ weights, or their number.
    double weight() const { return weight_; }

private:
    void set_normaliser(std::int64_t rows, std::int64_t outputs, bool by_rows, const std::string& operation);

    LossTarget<T> target_;
    Memory in_ = Memory::host;
    const std::int64_t rows_, outputs_;
    const std::string operation_;
    double weight_ = 0, normaliser_ = 1;
    std::vector<Compute<T>> class_weight_;
};

// A batch that training can use: rows for every micro-batch, two where batch normalisation needs a variance.
void check_training_rows(const Topology& topology, std::int64_t rows, std::int64_t micro_batches,
                         const std::string& operation);

extern template void check_class_weight<float>(const LossSettings&, std::int64_t, const std::string&);
extern template void check_class_weight<double>(const LossSettings&, std::int64_t, const std::string&);
extern template void check_class_weight<bfloat16>(const LossSettings&, std::int64_t, const std::string&);
extern template void check_class_weight<bfloat16x2>(const LossSettings&, std::int64_t, const std::string&);
extern template class CheckedTargets<float>;
extern template class CheckedTargets<double>;
extern template class CheckedTargets<bfloat16>;
extern template class CheckedTargets<bfloat16x2>;

}  // namespace resnetcore

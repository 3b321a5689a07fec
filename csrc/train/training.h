// One training: a network, a loss, an optimizer's state, and the pass that updates them.
//
// Whoever calls `step` or looks at `state` holds the model's lock.
#pragma once

#include <memory>

#include "base/error.h"
#include "train/any_model.h"
#include "train/backpropagation.h"
#include "train/optimizer_state.h"
#include "train/targets.h"

namespace resnetcore {

struct TrainingSettings {
    LossSettings loss;
    OptimizerSettings optimizer;
    std::uint64_t seed = 0;  // of the dropout masks
    double clip_norm = 0;    // 0: no clipping
    std::int64_t accumulate = 1;
};

// Throws ValueError, beginning with `operation`, for a number out of its range.
void check_settings(const TrainingSettings& settings, const std::string& operation);

template <class T>
class Training {
public:
    // The numbers are checked. Throws ValueError for what is out of range in the network's precision.
    Training(ModelPtr<T> trained, TrainingSettings numbers, const std::string& operation);

    const ModelPtr<T> model;
    const TrainingSettings settings;
    OptimizerState<T> state;
    double last_gradient_norm = 0, last_weight = 0;

    // One update; the loss of before it. Throws NonFiniteError, with nothing changed, where it becomes NaN or infinite.
    double step(Rows<Compute<T>> x, std::int64_t rows, const CheckedTargets<T>& targets, double lr,
                const std::string& operation, Memory x_in = Memory::host);

private:
    Backpropagation<T> pass_;
};

// Throws ValueError unless `lr` is positive and finite in the network's precision.
template <class T>
void check_lr(double lr, const std::string& operation);

// The error of a pass whose loss or update is NaN or infinite; `step` is 0 where no step is counted.
NonFiniteError non_finite(const PassResult& result, const std::string& operation, std::int64_t step = 0);

extern template class Training<float>;
extern template class Training<double>;
extern template class Training<bfloat16>;
extern template class Training<bfloat16x2>;
extern template void check_lr<float>(double, const std::string&);
extern template void check_lr<double>(double, const std::string&);
extern template void check_lr<bfloat16>(double, const std::string&);
extern template void check_lr<bfloat16x2>(double, const std::string&);

}  // namespace resnetcore

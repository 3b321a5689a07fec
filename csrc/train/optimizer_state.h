// An optimizer's settings, its arrays in the layout of the parameters they belong to and in the same device's memory,
// and its count of steps.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "train/model.h"
#include "train/staged_batch.h"

namespace resnetcore {

struct OptimizerSettings {
    int optimizer = 0;  // index into Optimizers
    double momentum = 0;
    bool nesterov = false;
    double weight_decay = 0;
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    bool decay_weights_only = false;
};

template <class T>
class OptimizerState {
public:
    OptimizerState(Model<T>& model, const OptimizerSettings& settings);

    const OptimizerSettings& settings() const { return settings_; }
    std::int64_t steps() const { return steps_; }
    void set_steps(std::int64_t steps) { steps_ = steps; }

    // The numbers of the update that comes after the next `between`.
    Hypers<T> hypers(double lr, std::int64_t between) const;
    // Where the updates that are asked for from now on find theirs, in memory of the device.
    void use(const Hyper<Compute<T>>* hypers) { hypers_ = hypers; }
    void count_step() { ++steps_; }

    Slot<Compute<T>> slot(int id);
    // In memory of the device.
    const Hyper<Compute<T>>* hyper(int id) const { return hypers_ + (decays(id) ? 0 : 1); }

    int arrays() const { return arrays_; }
    Compute<T>* array(int id, int index) { return states_[id * arrays_ + index].data(); }

private:
    bool decays(int id) const;

    Model<T>& model_;
    const OptimizerSettings settings_;
    const int arrays_;
    std::vector<AlignedArray<Compute<T>>> states_;
    std::int64_t steps_ = 0;
    const Hyper<Compute<T>>* hypers_ = nullptr;
};

extern template class OptimizerState<float>;
extern template class OptimizerState<double>;
extern template class OptimizerState<bfloat16>;
extern template class OptimizerState<bfloat16x2>;

}  // namespace resnetcore

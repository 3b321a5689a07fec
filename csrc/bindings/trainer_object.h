// A trainer as Python holds it: one network, its optimizer's state, and the passes that train it.
#pragma once

#include "bindings/batch_arguments.h"
#include "bindings/network_object.h"

namespace resnetcore {

template <class T>
struct TrainerOf {
    TrainerOf(ModelPtr<T> model, LossSettings loss, const OptimizerSettings& optimizer, std::uint64_t seed,
              double clip_norm, std::int64_t accumulate)
        : model(std::move(model)),
          loss(std::move(loss)),
          seed(seed),
          clip_norm(clip_norm),
          accumulate(accumulate),
          state(*this->model, optimizer),
          pass(*this->model, false) {}

    const ModelPtr<T> model;
    const LossSettings loss;
    const std::uint64_t seed;
    const double clip_norm;
    const std::int64_t accumulate;
    OptimizerState<T> state;
    Backpropagation<T> pass;
    AlignedArray<Compute<T>> gathered;
    double last_gradient_norm = 0, last_weight = 0;
};

}  // namespace resnetcore

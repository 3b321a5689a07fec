// One pass of forward, loss, backward and weight gradients over a batch, in one wake of the thread team.
//
// Invariant: nothing of the model changes before the loss of the whole batch is known to be finite; and nothing becomes
// NaN or infinite by an update. The factors of every gradient are measured as they are made, and bound it: an update
// that is too small to overflow is applied at once; any other, which is rare, on trial, with a copy at hand.
//
// On a device that works on its own, nobody waits inside a pass: what the loss decides is an Outcome in its memory,
// which the updates read as their permission, and the host gets it at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/recordings.h"
#include "train/model.h"
#include "train/optimizer_state.h"
#include "train/staged_batch.h"
#include "train/strategy.h"
#include "train/weight_gradients.h"

namespace resnetcore {

struct PassOptions {
    std::int64_t micro_batches = 1;
    double clip_norm = 0;         // 0: no clipping
    bool keep_gradients = false;  // materialise, update nothing
};

struct PassResult {
    double loss = 0;
    double gradient_norm = 0;     // where gradients were materialised
    std::int64_t bad_layer = -1;  // first layer with a NaN or infinity, where the loss has one
    std::string overflow;         // the parameter that the update would have made NaN or infinite
    bool finite = true;
};

// A step on `rows` rows as the choice of a strategy sees it, on as many threads as pay.
template <class T>
StepShape step_shape(const Model<T>& model, std::int64_t rows);

template <class T>
class Backpropagation {
public:
    Backpropagation(Model<T>& model, bool input_gradient);

    // The model is held by the caller. `state` may be null with keep_gradients.
    PassResult run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);

    // After a run that kept them: packed like the parameter, in memory of the device, or null for one without a
    // gradient.
    const Compute<T>* gradient(int id) const;

private:
    using Executor = BatchExecutor<T>;
    // What a pass reports, in memory of the device.
    struct Report {
        Outcome outcome;
        double gradient_norm = 0, clip_factor = 1;
    };

    Executor& executor(Strategy strategy);
    Executor& executor() const { return *executors_[static_cast<int>(strategy_)]; }
    void prepare(const Batch<T>& batch, const PassOptions& options);
    // Everything that a recording of a pass over `whole` depends on, memory that was asked for aside.
    static auto key(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state) {
        const LossTarget<T>& t = whole.target;
        return std::make_tuple(whole.input.data, whole.input.stride, whole.rows, whole.output_rows.data, t.loss,
                               t.labels, t.targets.data, t.targets.stride, t.class_weight, t.sample_weight,
                               t.label_smoothing, t.delta, options.micro_batches, options.clip_norm,
                               options.keep_gradients, state);
    }
    Frame<T> micro_batch(const Frame<T>& whole, const PassOptions& options, std::int64_t index) const;
    void pass(const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state);
    void team_body(Team& team, const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state);
    void conclude(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state);
    std::string run_carefully(const Frame<T>& whole, const PassOptions& options, OptimizerState<T>& state);
    void weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused);
    std::int64_t first_bad_layer(const Frame<T>& whole, const PassOptions& options) const;
    const Outcome* permission() const { return &report_.data()->outcome; }

    Model<T>& model_;
    const bool input_gradient_;
    std::unique_ptr<Executor> executors_[2];  // by strategy, made when first used
    Strategy strategy_ = Strategy::by_layer;
    int threads_ = 1;
    std::vector<WeightUnit> units_;
    WeightGradients<T> gradients_;
    StagedBatch<T> staged_;
    AlignedArray<double> row_loss_;
    AlignedArray<Report> report_;
    WorkQueue unit_queue_;
    bool careful_ = false;  // the update may overflow and is allowed to
    Recordings<decltype(key({}, {}, nullptr))> recordings_;
};

extern template class Backpropagation<float>;
extern template class Backpropagation<double>;
extern template class Backpropagation<bfloat16>;
extern template class Backpropagation<bfloat16x2>;

}  // namespace resnetcore

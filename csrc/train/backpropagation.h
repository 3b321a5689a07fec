// One pass of forward, loss, backward and weight gradients over a batch, in one wake of the thread team.
//
// Invariant: nothing of the model changes before the loss of the whole batch is known to be finite; and nothing becomes
// NaN or infinite by an update. The factors of every gradient are measured as they are made, and bound it: an update
// that is too small to overflow is applied at once; any other, which is rare, on trial, with a copy at hand.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/model.h"
#include "train/optimizer_state.h"
#include "train/strategy.h"
#include "train/weight_gradients.h"

namespace resnetcore {

template <class T>
struct Batch {
    Rows<Compute<T>> x;
    std::int64_t rows = 0;
    LossTarget<T> target;    // row_loss is filled in
    std::uint32_t step = 0;  // of the dropout's random numbers
    std::uint64_t seed = 0;
    MutableRows<Compute<T>> d_x;  // where ∂E/∂x goes, of a pass that takes it
};

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

    // The model's lock is held by the caller. `state` may be null with keep_gradients.
    PassResult run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);

    // After a run that kept them: packed like the parameter, or null for one without a gradient.
    const Compute<T>* gradient(int id) const;

private:
    using Executor = BatchExecutor<T>;

    Executor& executor(Strategy strategy);
    void prepare(const Batch<T>& batch, const PassOptions& options);
    Frame<T> micro_batch(const Batch<T>& batch, const PassOptions& options, std::int64_t index) const;
    void team_body(Team& team, const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);
    void check_loss(const Batch<T>& batch, const PassOptions& options, const OptimizerState<T>* state);
    void run_carefully(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>& state);
    void weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused);
    std::int64_t first_bad_layer(const Batch<T>& batch, const PassOptions& options) const;

    Model<T>& model_;
    const bool input_gradient_;
    std::unique_ptr<Executor> executors_[2];  // by strategy, made when first used
    Strategy strategy_ = Strategy::by_layer;
    int threads_ = 1;
    std::vector<WeightUnit> units_;
    WeightGradients<T> gradients_;
    std::vector<double> row_loss_;
    WorkQueue unit_queue_;
    bool careful_ = false;  // the update may overflow and is allowed to
    bool may_overflow_ = false;
    PassResult result_;
};

extern template class Backpropagation<float>;
extern template class Backpropagation<double>;
extern template class Backpropagation<bfloat16>;
extern template class Backpropagation<bfloat16x2>;

}  // namespace resnetcore

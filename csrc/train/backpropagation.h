// One pass of forward, loss, backward and weight gradients over a batch, in one wake of the thread team.
//
// Invariant: nothing of the model changes before the loss of the whole batch is known to be finite.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "train/model.h"
#include "train/optimizer_state.h"

namespace resnetcore {

template <class T>
struct Batch {
    Rows<T> x;
    std::int64_t rows = 0;
    LossTarget<T> target;    // row_loss is filled in
    std::uint32_t step = 0;  // of the dropout's random numbers
    std::uint64_t seed = 0;
};

struct PassOptions {
    int micro_batches = 1;
    double clip_norm = 0;         // 0: no clipping
    bool keep_gradients = false;  // materialise, update nothing
};

struct PassResult {
    double loss = 0;
    double gradient_norm = 0;     // where gradients were materialised
    std::int64_t bad_layer = -1;  // first layer with a NaN or infinity, where the loss has one
    bool finite = true;
};

template <class T>
class Backpropagation {
public:
    Backpropagation(Model<T>& model, bool input_gradient);

    // The model's lock is held by the caller. `state` may be null with keep_gradients.
    PassResult run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);

    // After a run that kept them: packed like the parameter, or null for one without a gradient.
    const T* gradient(int id) const;
    Rows<T> input_gradient() const;
    std::int64_t bytes() const { return executor_.bytes(); }

private:
    struct Unit {  // one panel of one weight
        const WeightStep* step;
        std::int64_t panel;
    };

    void prepare(const Batch<T>& batch, const PassOptions& options);
    Frame<T> micro_batch(const Batch<T>& batch, const PassOptions& options, int index) const;
    void team_body(Team& team, const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);
    void check_loss(const Batch<T>& batch);
    void weights(Team& team, const Frame<T>& frame, OptimizerState<T>* fused, bool accumulate);
    void weight_unit(const Unit& unit, const Frame<T>& frame, OptimizerState<T>* fused, bool accumulate, T* scratch);
    void clip(Team& team, double clip_norm);
    void update(OptimizerState<T>& state);
    void update_norms(OptimizerState<T>& state);
    template <class Visit>
    void visit_gradient(const Unit& unit, Visit visit);

    Model<T>& model_;
    BatchExecutor<T> executor_;
    std::vector<Unit> units_;
    std::vector<AlignedArray<T>> gradients_;  // by parameter; empty until materialised
    std::vector<AlignedArray<T>> scratch_;    // by thread
    std::vector<double> row_loss_, squares_;
    WorkQueue unit_queue_, clip_queue_, update_queue_;
    PassResult result_;
    Frame<T> last_frame_;
};

extern template class Backpropagation<float>;
extern template class Backpropagation<double>;

}  // namespace resnetcore

// Passes of forward, loss, backward and weight gradients over a batch, each in one wake of the thread team.
//
// Invariant: nothing of the model changes before the loss of the whole batch is known to be finite; and nothing becomes
// NaN or infinite by an update. Where one follows, the factors of every gradient are measured as they are made, and
// bound it: an update that is too small to overflow is applied at once; any other, which is rare, on trial, with a copy
// at hand.
//
// On a device that works on its own, nobody waits inside a pass: what the loss decides is an Outcome in its memory,
// which the updates read as their permission. The host may ask for the next pass before it looks at that of the one
// before. From a pass that is not permitted on, the device permits none until the host has looked: what was asked for
// meanwhile is asked for again, or dropped.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/recordings.h"
#include "train/lent_parameters.h"
#include "train/model.h"
#include "train/optimizer_state.h"
#include "train/staged_batch.h"
#include "train/step_shape.h"
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
    double gradient_norm = 0;     // where gradients were materialised for an update
    std::int64_t bad_layer = -1;  // first layer with a NaN or infinity, where the loss has one
    std::string overflow;         // the parameter that the update would have made NaN or infinite
    bool finite = true;
};

template <class T>
class Backpropagation {
public:
    Backpropagation(Model<T>& model, bool input_gradient);

    // The model is held by the caller, here and below. `state` may be null with keep_gradients.
    PassResult run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state) {
        begin(batch, options, state);
        return finish();
    }

    // The gradients of a batch's loss, to where `lent`, which was lent both halves, has them go; nothing is updated.
    // They are not all set where the result is not finite.
    PassResult gradients(const Batch<T>& batch, LentParameters<T>& lent);

    // `run` in two halves. Passes are finished in their order, and at most this many are begun before the first of
    // them is finished. Where `finish` throws or its result is not finite, those begun after it are dropped: they have
    // changed nothing. Where `begin` throws, nothing that it has asked for is under way any more.
    static constexpr int most_in_flight = 2;
    void begin(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state);
    PassResult finish();
    int in_flight() const { return in_flight_; }

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
    // A pass from its beginning to its end, and all that no other may write meanwhile.
    struct Flight {
        explicit Flight(const Model<T>& model);
        const Report& answer() const { return *static_cast<const Report*>(fetched.get()); }

        StagedBatch<T> staged;
        AlignedArray<double> row_loss;  // and behind it, where the device's kernels take them, the sums
        AlignedArray<Report> report;
        Pinned fetched;  // the report
        Mark landed;
        Frame<T> whole;
        PassOptions options;
        OptimizerState<T>* state = nullptr;
        std::exception_ptr failure;  // of the second time that it was asked for
    };

    Executor& executor(Strategy strategy);
    Executor& executor() const { return *executors_[static_cast<int>(strategy_)]; }
    // Everything that a recording of a pass over `whole` depends on, memory that was asked for aside.
    static auto key(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state) {
        const LossTarget<T>& t = whole.target;
        return std::make_tuple(whole.input.data, whole.input.stride, whole.rows, whole.output_rows.data, whole.dropout,
                               t.loss, t.labels, t.targets.data, t.targets.stride, t.class_weight, t.sample_weight,
                               t.label_smoothing, t.delta, options.micro_batches, options.clip_norm,
                               options.keep_gradients, state);
    }
    Flight& flight(int place);  // the first that is in flight is 0
    // Makes room; everything that can fail for lack of memory is done here, and in `StagedBatch`.
    void prepare(const Flight& flight);
    void launch(Flight& flight);
    void launch_again(Flight& flight) noexcept;
    PassResult judge(Flight& flight);
    void open() noexcept;
    void drop_all() noexcept;
    Frame<T> micro_batch(const Frame<T>& whole, const PassOptions& options, std::int64_t index) const;
    std::int64_t loss_sums(std::int64_t rows, const PassOptions& options, std::int64_t count) const;
    void pass(const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state);
    void team_body(Team& team, const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state);
    void conclude(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state);
    std::string run_carefully(Flight& flight);
    void weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused);
    std::int64_t first_bad_layer(const Frame<T>& whole, const PassOptions& options) const;
    const Outcome* permission() const { return &report_->outcome; }

    Model<T>& model_;
    const bool input_gradient_;
    std::unique_ptr<Executor> executors_[2];  // by strategy, made when first used
    Strategy strategy_ = Strategy::by_layer;
    int threads_ = 1;
    int path_ = -1;  // of the device's kernels
    std::vector<WeightUnit> units_;
    WeightGradients<T> gradients_;
    std::array<std::unique_ptr<Flight>, most_in_flight> flights_;  // made when first used
    int first_ = 0, in_flight_ = 0;
    AlignedArray<std::int32_t> shut_;  // see ConcludeArgs
    Report* report_ = nullptr;         // of the pass that is being asked for, in memory of the device
    WorkQueue unit_queue_;
    LentParameters<T>* lent_ = nullptr;  // of a pass that is given its parameters
    bool careful_ = false;               // the update may overflow and is allowed to
    Recordings<std::pair<int, decltype(key({}, {}, nullptr))>> recordings_;
};

extern template class Backpropagation<float>;
extern template class Backpropagation<double>;
extern template class Backpropagation<bfloat16>;
extern template class Backpropagation<bfloat16x2>;

}  // namespace resnetcore

// The gradients of a model's weights as arrays, packed like the weights: for clipping, for several micro-batches, and
// wherever a batch's gradient is put together tile by tile.
#pragma once

#include <vector>

#include "train/model.h"
#include "train/optimizer_state.h"

namespace resnetcore {

// Some panels of one weight, and their columns of the bias that shares its δ: what a thread works on alone.
struct WeightUnit {
    int step;  // index into Plan::weights
    int weight, bias;
    std::int64_t first_panel, last_panel;
};

template <class T>
std::vector<WeightUnit> weight_units(const Model<T>& model, const std::vector<WeightStep>& steps);

// What every call of `backward_weights` for a weight has in common; all its panels, no destination.
template <class T>
BackwardWeightsArgs<T> weight_args(const Model<T>& model, const WeightStep& step, Rows<T> a, Rows<T> delta,
                                   std::int64_t rows);

template <class T>
class WeightGradients : public GradientSink<T> {
public:
    WeightGradients(Model<T>& model, const std::vector<WeightUnit>& units);

    // What becomes of the sums of a pass: an update at once, arrays, or what the caller makes of each call's.
    enum class Kept { nowhere, in_arrays, apart };
    // Makes room for up to `rows` rows a call; everything that can fail for lack of memory is done here. `by_columns`:
    // each thread takes the panels whose columns it has in products, as far as others leave it them.
    void prepare(std::int64_t rows, int threads, Kept kept, bool by_columns);
    // By one thread, before a pass that goes on with `clip` or `update`.
    void begin(int threads);
    // Pieces of a queue for `take_units`.
    std::int64_t groups() const { return static_cast<std::int64_t>(groups_.size()); }
    // `backward_weights` of the groups of panels that the queue has for this thread; where a device takes them
    // together, which has one thread, in one call. direct_to(args, step) says where a sum is left; after(args, step)
    // finds it there, where they are taken one by one.
    template <class Direct, class After>
    void take_units(WorkQueue& queue, int thread, const BatchExecutor<T>& executor, const Frame<T>& frame,
                    Direct direct_to, After after);
    void add(const WeightStep& step, Rows<T> a, Rows<T> delta, std::int64_t rows, bool first, int thread) override;
    // Where one call of `backward_weights` leaves its sum: in the arrays, or in the weight, by the optimizer.
    void direct(BackwardWeightsArgs<T>& args, const WeightStep& step, bool first, int thread);
    void direct(BackwardWeightsArgs<T>& args, const WeightStep& step, OptimizerState<T>& state,
                const Outcome* permission, int thread);
    // Or as a matrix of the call's columns alone, packed, in memory of the thread's until its next call. The bias has
    // no array yet.
    void direct_apart(BackwardWeightsArgs<T>& args, int thread);

    // The following are called by every thread of a team, and end in a barrier.
    // Scales all gradients, those of the norms included, to a norm of at most `largest` (0: any). `norm` gets that of
    // before; it and `factor` are in memory of the device.
    void clip(Team& team, double largest, double* norm, double* factor);
    void update(Team& team, OptimizerState<T>& state, const Outcome* permission);

    // Packed like the parameter, or null for one without a gradient here.
    const Compute<T>* array(int id) const { return arrays_[id].size() > 0 ? arrays_[id].data() : nullptr; }

private:
    template <class Visit>
    void visit(const WeightUnit& unit, Visit visit);
    template <class Visit>
    void visit_norms(Visit visit);
    // A weight's and its bias's, or a norm's two.
    std::int64_t squares_of_pair() const { return 2 * model_.kernels().square_parts; }
    std::int64_t waiting_panels(std::int64_t inner) const;
    void group_units(int threads);
    void group_columns(int threads, Kept kept);
    void update_unit(const WeightUnit& unit, OptimizerState<T>& state, const Outcome* permission);

    Model<T>& model_;
    const std::vector<WeightUnit>& units_;
    std::int64_t rows_ = 0;                         // that there is room for
    std::vector<AlignedArray<Compute<T>>> arrays_;  // by parameter
    struct Group {
        int step, weight;
        std::int64_t first_panel, last_panel;
    };
    std::vector<Group> groups_;
    struct Room {
        AlignedArray<Compute<T>> sums;
        AlignedArray<T> stretch;
    };
    std::vector<BackwardWeightsArgs<T>> calls_;
    std::vector<Room> rooms_;       // by thread
    AlignedArray<double> squares_;  // a pair's for each unit, and for each norm
    WorkQueue squares_queue_, scale_queue_, update_queue_;
};

template <class T>
template <class Direct, class After>
void WeightGradients<T>::take_units(WorkQueue& queue, int thread, const BatchExecutor<T>& executor,
                                    const Frame<T>& frame, Direct direct_to, After after) {
    const KernelTable<T>& kernels = model_.kernels();
    const bool together = kernels.backward_all_weights != nullptr;
    if (together) calls_.clear();
    std::int64_t index;
    while (queue.take(thread, index)) {
        const Group& group = groups_[static_cast<std::size_t>(index)];
        if (group.first_panel == group.last_panel) continue;
        const WeightStep& step = executor.plan().weights[group.step];
        BackwardWeightsArgs<T> args =
            weight_args(model_, step, executor.rows(step.a, frame), executor.rows(step.delta, frame), frame.rows);
        args.first_panel = group.first_panel;
        args.last_panel = group.last_panel;
        direct_to(args, step);
        if (together) {
            calls_.push_back(args);
            continue;
        }
        kernels.backward_weights(args);
        after(args, step);
    }
    if (together) kernels.backward_all_weights(calls_.data(), static_cast<std::int64_t>(calls_.size()));
}

// The optimizer on the norms' weights and biases; by one thread.
template <class T>
void update_norms(Model<T>& model, OptimizerState<T>& state, const Outcome* permission);

extern template class WeightGradients<float>;
extern template class WeightGradients<double>;
extern template class WeightGradients<bfloat16>;
extern template class WeightGradients<bfloat16x2>;

}  // namespace resnetcore

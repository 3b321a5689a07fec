#include "train/backpropagation.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "runtime/tiles.h"
#include "train/snapshot.h"

namespace resnetcore {
namespace {

bool materialises(const PassOptions& options) {
    return options.micro_batches > 1 || options.clip_norm > 0 || options.keep_gradients;
}

}  // namespace

template <class T>
Backpropagation<T>::Backpropagation(Model<T>& model, bool input_gradient)
    : model_(model),
      input_gradient_(input_gradient),
      units_(weight_units(model, executor(Strategy::by_layer).plan().weights)),
      gradients_(model, units_) {}

template <class T>
BatchExecutor<T>& Backpropagation<T>::executor(Strategy strategy) {
    auto& made = executors_[static_cast<int>(strategy)];
    if (!made)
        made = std::make_unique<Executor>(model_.training_plan(strategy == Strategy::by_tile, input_gradient_),
                                          model_.kernels(), model_.store(), model_.norms(), nullptr,
                                          2 * model_.weight_bytes());
    return *made;
}

template <class T>
StepShape step_shape(const Model<T>& model, std::int64_t rows) {
    StepShape shape;
    shape.rows = rows;
    shape.element_size = sizeof(T);
    shape.weights = model.weight_elements();
    for (const Layer& layer : model.topology().layers) {
        shape.row_width += layer.width;
        shape.one_phase &= !layer.batch_norm;
    }
    // Forward, data and weights each multiply every weight with every row; an activation costs some more.
    shape.threads = useful_threads(rows * (3 * shape.weights + 16 * shape.row_width), get_num_threads());
    return shape;
}

template <class T>
void Backpropagation<T>::prepare(const Batch<T>& batch, const PassOptions& options) {
    const std::int64_t rows = (batch.rows + options.micro_batches - 1) / options.micro_batches;
    const Choice choice = choose_strategy(step_shape(model_, rows));
    threads_ = choice.threads;
    strategy_ = choice.strategy;
    executor(strategy_).prepare(rows, threads_);
    gradients_.prepare(threads_, materialises(options) || strategy_ == Strategy::by_tile);
    row_loss_.resize(batch.rows);
    unit_queue_.reserve(threads_);
}

template <class T>
Frame<T> Backpropagation<T>::micro_batch(const Batch<T>& batch, const PassOptions& options, std::int64_t index) const {
    const std::int64_t begin = batch.rows * index / options.micro_batches;
    const std::int64_t end = batch.rows * (index + 1) / options.micro_batches;
    Frame<T> frame;
    frame.input = {batch.x.data + begin * batch.x.stride, batch.x.stride};
    frame.rows = end - begin;
    frame.first_row = begin;
    frame.continues = index > 0;
    frame.dropout = {batch.seed, 0, batch.step};
    frame.target = batch.target;
    frame.target.row_loss = const_cast<double*>(row_loss_.data());
    if (batch.d_x.data) {
        frame.output = executors_[static_cast<int>(strategy_)]->plan().input_gradient;
        frame.output_rows = {batch.d_x.data + begin * batch.d_x.stride, batch.d_x.stride};
    }
    return frame;
}

template <class T>
PassResult Backpropagation<T>::run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state) {
    prepare(batch, options);
    model_.norms().begin_step();
    result_ = {};
    careful_ = may_overflow_ = false;
    run_on_team([&](Team& team) { team_body(team, batch, options, state); }, threads_);
    if (may_overflow_) run_carefully(batch, options, *state);
    if (!result_.overflow.empty()) return result_;
    if (!result_.finite) result_.bad_layer = first_bad_layer(batch, options);
    if (result_.finite && state && !options.keep_gradients) {
        model_.norms().commit_running_statistics();
        model_.parameters_changed();
        state->finish_step();
    }
    return result_;
}

// The same pass again, now with its update; undone where that was not finite.
template <class T>
void Backpropagation<T>::run_carefully(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>& state) {
    Snapshot<T> before(model_, state);
    careful_ = true;
    prepare(batch, options);
    model_.norms().begin_step();
    run_on_team([&](Team& team) { team_body(team, batch, options, &state); }, threads_);
    result_.overflow = before.first_overflow();
    if (result_.overflow.empty()) return;
    result_.finite = false;
    before.restore();
}

template <class T>
void Backpropagation<T>::team_body(Team& team, const Batch<T>& batch, const PassOptions& options,
                                   OptimizerState<T>* state) {
    Executor& executor = *executors_[static_cast<int>(strategy_)];
    const bool by_tile = strategy_ == Strategy::by_tile, materialise = by_tile || materialises(options);
    for (std::int64_t m = 0; m < options.micro_batches; ++m) {
        const Frame<T> frame = micro_batch(batch, options, m);
        if (team.rank() == 0) {
            executor.begin(frame.rows, team.size());
            unit_queue_.reset(static_cast<std::int64_t>(units_.size()), team.size());
        }
        team.barrier();
        executor.run(team, frame, &gradients_);
        if (m + 1 == options.micro_batches) {
            if (team.rank() == 0) check_loss(batch, options, state);
            team.barrier();
            if (!result_.finite || may_overflow_) return;
        }
        if (by_tile) continue;
        weights_by_layer(team, frame, materialise ? nullptr : state);
        team.barrier();
    }
    if (materialises(options)) {
        const double norm = gradients_.clip(team, options.clip_norm);
        if (team.rank() == 0) result_.gradient_norm = norm;
    }
    if (options.keep_gradients) return;
    if (materialise) gradients_.update(team, *state);
    if (team.rank() == 0) update_norms(model_, *state);
}

template <class T>
void Backpropagation<T>::check_loss(const Batch<T>& batch, const PassOptions& options, const OptimizerState<T>* state) {
    double loss = 0;
    for (double row : row_loss_) loss += row;
    result_.loss = loss;
    result_.finite = std::isfinite(loss);
    // Squares and multiples by any sensible number of an update below this are far from what T ends with.
    constexpr double small = 1e15;
    const double gradient =
        static_cast<double>(batch.rows) * executors_[static_cast<int>(strategy_)]->largest_product();
    const bool updates = result_.finite && state && !options.keep_gradients;
    may_overflow_ = updates && !careful_ && !(larger(gradient, 1) * std::max(1.0, state->lr()) < small);
}

template <class T>
void Backpropagation<T>::weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused) {
    const Executor& executor = *executors_[static_cast<int>(strategy_)];
    std::int64_t index;
    while (unit_queue_.take(team.rank(), index)) {
        const WeightUnit& unit = units_[index];
        const WeightStep& step = executor.plan().weights[unit.step];
        BackwardWeightsArgs<T> args =
            weight_args(model_, step, executor.rows(step.a, frame), executor.rows(step.delta, frame), frame.rows);
        args.first_panel = unit.first_panel;
        args.last_panel = unit.last_panel;
        if (fused)
            gradients_.direct(args, step, *fused, team.rank());
        else
            gradients_.direct(args, step, !frame.continues, team.rank());
        model_.kernels().backward_weights(args);
    }
}

// The pass keeps no activation that it does not need: the first micro-batch whose loss is not finite goes forward once
// more. −1 where there is no memory to look.
template <class T>
std::int64_t Backpropagation<T>::first_bad_layer(const Batch<T>& batch, const PassOptions& options) const {
    std::int64_t bad = 0;
    auto finite = [&](std::int64_t m) {
        const Frame<T> frame = micro_batch(batch, options, m);
        const double* loss = row_loss_.data() + frame.first_row;
        return std::all_of(loss, loss + frame.rows, [](double l) { return std::isfinite(l); });
    };
    while (bad + 1 < options.micro_batches && finite(bad)) ++bad;
    try {
        Frame<T> frame = micro_batch(batch, options, bad);
        frame.output = -1;
        return model_.first_bad_layer(frame);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

template <class T>
const Compute<T>* Backpropagation<T>::gradient(int id) const {
    const Parameter& p = model_.parameters().all[id];
    if (p.role == Role::norm_weight) return model_.norms().of_layer(p.layer).d_weight.data();
    if (p.role == Role::norm_bias) return model_.norms().of_layer(p.layer).d_bias.data();
    return gradients_.array(id);
}

template StepShape step_shape(const Model<float>&, std::int64_t);
template StepShape step_shape(const Model<double>&, std::int64_t);
template StepShape step_shape(const Model<bfloat16>&, std::int64_t);
template StepShape step_shape(const Model<bfloat16x2>&, std::int64_t);
template class Backpropagation<float>;
template class Backpropagation<double>;
template class Backpropagation<bfloat16>;
template class Backpropagation<bfloat16x2>;

}  // namespace resnetcore

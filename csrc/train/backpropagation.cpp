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
      gradients_(model, units_),
      staged_(model.device(), model.topology().inputs, model.outputs()),
      row_loss_(model.device()),
      report_(model.device(), 1),
      recordings_(model.device()) {}

template <class T>
BatchExecutor<T>& Backpropagation<T>::executor(Strategy strategy) {
    auto& made = executors_[static_cast<int>(strategy)];
    if (!made)
        made = std::make_unique<Executor>(model_.training_plan(strategy == Strategy::by_tile, input_gradient_),
                                          model_.device(), model_.store(), model_.norms(), nullptr,
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
    shape.in_tiles = model.device().is_host();
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
    row_loss_.reserve(batch.rows);
    unit_queue_.reserve(threads_);
}

template <class T>
Frame<T> Backpropagation<T>::micro_batch(const Frame<T>& whole, const PassOptions& options, std::int64_t index) const {
    const std::int64_t begin = whole.rows * index / options.micro_batches;
    const std::int64_t end = whole.rows * (index + 1) / options.micro_batches;
    Frame<T> frame = whole;
    frame.input.data += begin * whole.input.stride;
    frame.rows = end - begin;
    frame.first_row = begin;
    frame.continues = index > 0;
    if (whole.output_rows.data) {
        frame.output = executor().plan().input_gradient;
        frame.output_rows.data += begin * whole.output_rows.stride;
    }
    return frame;
}

template <class T>
PassResult Backpropagation<T>::run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state) {
    prepare(batch, options);
    Frame<T> whole = staged_.take(batch);
    whole.target.row_loss = row_loss_.data();
    careful_ = false;
    recordings_.run(key(whole, options, state), [&] { pass(whole, options, state); });
    Report report;
    model_.device().download(&report, report_.data(), sizeof report);
    PassResult result;
    result.loss = report.outcome.loss;
    result.finite = report.outcome.finite;
    if (report.outcome.may_overflow) {
        result.overflow = run_carefully(whole, options, *state);
        if (!result.overflow.empty()) {
            result.finite = false;
            return result;
        }
        model_.device().download(&report, report_.data(), sizeof report);
    }
    if (materialises(options)) result.gradient_norm = report.gradient_norm;
    if (!result.finite) result.bad_layer = first_bad_layer(whole, options);
    if (result.finite && state && !options.keep_gradients) {
        model_.parameters_changed();
        state->finish_step();
    }
    staged_.finish();
    return result;
}

// The same pass again, now with its update; undone where that was not finite, or the device failed. The name of the
// parameter that was not.
template <class T>
std::string Backpropagation<T>::run_carefully(const Frame<T>& whole, const PassOptions& options,
                                              OptimizerState<T>& state) {
    Snapshot<T> before(model_, state);
    careful_ = true;
    std::string overflow;
    try {
        pass(whole, options, &state);
        overflow = before.first_overflow();
    } catch (...) {
        before.restore();
        throw;
    }
    if (overflow.empty())
        model_.norms().commit_running_statistics(nullptr);
    else
        before.restore();
    return overflow;
}

template <class T>
void Backpropagation<T>::pass(const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state) {
    model_.norms().begin_step();
    executor().forget_magnitudes();
    gradients_.begin(threads_);
    run_on_team([&](Team& team) { team_body(team, whole, options, state); }, threads_);
}

template <class T>
void Backpropagation<T>::team_body(Team& team, const Frame<T>& whole, const PassOptions& options,
                                   OptimizerState<T>* state) {
    const bool by_tile = strategy_ == Strategy::by_tile, materialise = by_tile || materialises(options);
    for (std::int64_t m = 0; m < options.micro_batches; ++m) {
        const Frame<T> frame = micro_batch(whole, options, m);
        if (team.rank() == 0) {
            executor().begin(frame.rows, team.size());
            unit_queue_.reset(static_cast<std::int64_t>(units_.size()), team.size());
        }
        team.barrier();
        executor().run(team, frame, &gradients_);
        if (m + 1 == options.micro_batches) {
            if (team.rank() == 0) conclude(whole, options, state);
            team.barrier();
            if (model_.device().is_host() && !permits(permission())) return;
        }
        if (by_tile) continue;
        weights_by_layer(team, frame, materialise ? nullptr : state);
        team.barrier();
    }
    Report& report = *report_.data();
    if (materialises(options)) gradients_.clip(team, options.clip_norm, &report.gradient_norm, &report.clip_factor);
    if (options.keep_gradients) return;
    if (materialise) gradients_.update(team, *state, permission());
    if (team.rank() > 0) return;
    update_norms(model_, *state, permission());
    if (!careful_) model_.norms().commit_running_statistics(permission());
}

template <class T>
void Backpropagation<T>::conclude(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state) {
    const bool can_overflow = state && !options.keep_gradients && !careful_;
    const double* magnitudes = executor().magnitudes();
    model_.kernels().conclude({whole.rows, row_loss_.data(), magnitudes, magnitudes + 1,
                               can_overflow ? state->hyper(0) : nullptr, &report_.data()->outcome});
}

template <class T>
void Backpropagation<T>::weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused) {
    std::int64_t index;
    while (unit_queue_.take(team.rank(), index)) {
        const WeightUnit& unit = units_[index];
        const WeightStep& step = executor().plan().weights[unit.step];
        BackwardWeightsArgs<T> args =
            weight_args(model_, step, executor().rows(step.a, frame), executor().rows(step.delta, frame), frame.rows);
        args.first_panel = unit.first_panel;
        args.last_panel = unit.last_panel;
        if (fused)
            gradients_.direct(args, step, *fused, permission(), team.rank());
        else
            gradients_.direct(args, step, !frame.continues, team.rank());
        model_.kernels().backward_weights(args);
    }
}

// The pass keeps no activation that it does not need: the first micro-batch whose loss is not finite goes forward once
// more. −1 where there is no memory to look.
template <class T>
std::int64_t Backpropagation<T>::first_bad_layer(const Frame<T>& whole, const PassOptions& options) const {
    try {
        std::vector<double> losses(static_cast<std::size_t>(whole.rows));
        model_.device().download(losses.data(), row_loss_.data(), losses.size() * sizeof(double));
        std::int64_t bad = 0;
        auto finite = [&](std::int64_t m) {
            const Frame<T> frame = micro_batch(whole, options, m);
            const double* loss = losses.data() + frame.first_row;
            return std::all_of(loss, loss + frame.rows, [](double l) { return std::isfinite(l); });
        };
        while (bad + 1 < options.micro_batches && finite(bad)) ++bad;
        Frame<T> frame = micro_batch(whole, options, bad);
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

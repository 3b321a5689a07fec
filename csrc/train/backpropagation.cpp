#include "train/backpropagation.h"

#include <algorithm>
#include <cmath>

namespace resnetcore {

template <class T>
Backpropagation<T>::Backpropagation(Model<T>& model, bool input_gradient)
    : model_(model),
      executor_(model.plan(true, input_gradient), model.kernels(), model.store(), model.norms(), nullptr,
                2 * model.weight_bytes()),
      gradients_(model.parameters().all.size()) {
    const auto& all = model.parameters().all;
    for (const WeightStep& step : executor_.plan().weights)
        for (std::int64_t p = 0; p < panel_count(all[step.weight].columns, model.kernels().panel); ++p)
            units_.push_back({&step, p});
}

template <class T>
void Backpropagation<T>::prepare(const Batch<T>& batch, const PassOptions& options) {
    const auto& all = model_.parameters().all;
    const int threads = get_num_threads();
    executor_.prepare((batch.rows + options.micro_batches - 1) / options.micro_batches, threads);
    std::int64_t inner = 1;
    for (const WeightStep& step : executor_.plan().weights) inner = std::max(inner, all[step.weight].rows);
    while (static_cast<int>(scratch_.size()) < threads) scratch_.emplace_back(inner * model_.kernels().panel);
    if (options.micro_batches > 1 || options.clip_norm > 0 || options.keep_gradients)
        for (const WeightStep& step : executor_.plan().weights)
            for (int id : {step.weight, step.bias})
                if (id >= 0) gradients_[id].reserve(model_.store().packed_elements(id));
    row_loss_.resize(batch.rows);
    squares_.resize(units_.size());
    const auto units = static_cast<std::int64_t>(units_.size());
    clip_queue_.reset(units);
    update_queue_.reset(units);
}

template <class T>
Frame<T> Backpropagation<T>::micro_batch(const Batch<T>& batch, const PassOptions& options, int index) const {
    const std::int64_t begin = batch.rows * index / options.micro_batches;
    const std::int64_t end = batch.rows * (index + 1) / options.micro_batches;
    Frame<T> frame;
    frame.input = {batch.x.data + begin * batch.x.stride, batch.x.stride};
    frame.rows = end - begin;
    frame.first_row = begin;
    frame.dropout = {batch.seed, 0, batch.step};
    frame.target = batch.target;
    frame.target.row_loss = const_cast<double*>(row_loss_.data());
    return frame;
}

template <class T>
PassResult Backpropagation<T>::run(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state) {
    prepare(batch, options);
    model_.norms().begin_step();
    result_ = {};
    const int threads = std::min<int>(get_num_threads(), static_cast<int>(scratch_.size()));
    run_on_team([&](Team& team) { team_body(team, batch, options, state); }, threads);
    if (result_.finite && state && !options.keep_gradients) {
        model_.norms().commit_running_statistics();
        model_.parameters_changed();
        state->finish_step();
    }
    return result_;
}

template <class T>
void Backpropagation<T>::team_body(Team& team, const Batch<T>& batch, const PassOptions& options,
                                   OptimizerState<T>* state) {
    const bool materialise = options.micro_batches > 1 || options.clip_norm > 0 || options.keep_gradients;
    for (int m = 0; m < options.micro_batches; ++m) {
        const Frame<T> frame = micro_batch(batch, options, m);
        if (team.rank() == 0) {
            last_frame_ = frame;
            executor_.begin(frame.rows);
            unit_queue_.reset(static_cast<std::int64_t>(units_.size()));
        }
        team.barrier();
        executor_.run(team, frame);
        if (m + 1 == options.micro_batches) {
            if (team.rank() == 0) check_loss(batch);
            team.barrier();
            if (!result_.finite) return;
        }
        weights(team, frame, materialise ? nullptr : state, m > 0);
        team.barrier();
    }
    if (materialise) clip(team, options.clip_norm);
    if (options.keep_gradients) return;
    if (materialise) update(*state);
    if (team.rank() == 0) update_norms(*state);
}

template <class T>
void Backpropagation<T>::check_loss(const Batch<T>& batch) {
    double loss = 0;
    for (double row : row_loss_) loss += row;
    result_.loss = loss;
    result_.finite = std::isfinite(loss);
    if (result_.finite) return;
    // Activations are still there (of the last micro-batch, at least): name the first layer that went wrong.
    const Plan& plan = executor_.plan();
    (void)batch;
    for (std::size_t id = 0; id < plan.buffers.size() && result_.bad_layer < 0; ++id) {
        const BufferInfo& buffer = plan.buffers[id];
        if (buffer.name.find('.') != std::string::npos) continue;
        const Rows<T> rows = executor_.rows(static_cast<BufferId>(id), last_frame_);
        for (std::int64_t i = 0; i < last_frame_.rows && result_.bad_layer < 0; ++i)
            for (std::int64_t j = 0; j < buffer.width; ++j)
                if (!std::isfinite(rows.data[i * rows.stride + j])) result_.bad_layer = std::stoll(buffer.name);
    }
}

template <class T>
void Backpropagation<T>::weights(Team& team, const Frame<T>& frame, OptimizerState<T>* fused, bool accumulate) {
    std::int64_t unit;
    while (unit_queue_.take(unit)) weight_unit(units_[unit], frame, fused, accumulate, scratch_[team.rank()].data());
}

template <class T>
void Backpropagation<T>::weight_unit(const Unit& unit, const Frame<T>& frame, OptimizerState<T>* fused, bool accumulate,
                                     T* scratch) {
    const WeightStep& step = *unit.step;
    const Parameter& p = model_.parameters().all[step.weight];
    BackwardWeightsArgs<T> args;
    args.rows = frame.rows;
    args.inner = p.rows;
    args.columns = p.columns;
    args.first_panel = unit.panel;
    args.last_panel = unit.panel + 1;
    args.a = step.a == 0 ? frame.input : executor_.rows(step.a, frame);
    args.delta = executor_.rows(step.delta, frame);
    args.has_bias = step.bias >= 0;
    args.scratch = scratch;
    if (!fused) {
        args.gradient = gradients_[step.weight].data();
        if (args.has_bias) args.bias_gradient = gradients_[step.bias].data();
        args.accumulate = accumulate;
    } else {
        args.weight = fused->slot(step.weight);
        args.transposed = model_.store().transposed(step.weight);
        args.optimizer = fused->settings().optimizer;
        args.weight_hyper = fused->hyper(step.weight);
        if (args.has_bias) args.bias = fused->slot(step.bias), args.bias_hyper = fused->hyper(step.bias);
    }
    model_.kernels().backward_weights(args);
}

// The gradient elements that belong to a unit: one packed panel, and its columns of the bias.
template <class T>
template <class Visit>
void Backpropagation<T>::visit_gradient(const Unit& unit, Visit visit) {
    const Parameter& p = model_.parameters().all[unit.step->weight];
    const std::int64_t width = model_.kernels().panel, first = unit.panel * width;
    visit(gradients_[unit.step->weight].data() + first * p.rows, p.rows * width);
    if (unit.step->bias >= 0) visit(gradients_[unit.step->bias].data() + first, std::min(width, p.columns - first));
}

// Squares are summed per unit and then in order, so that the norm does not depend on who summed what.
template <class T>
void Backpropagation<T>::clip(Team& team, double clip_norm) {
    std::int64_t index;
    while (clip_queue_.take(index)) {
        double sum = 0;
        visit_gradient(units_[index], [&](const T* g, std::int64_t n) {
            for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(g[i]) * g[i];
        });
        squares_[index] = sum;
    }
    team.barrier();
    if (team.rank() == 0) {
        double total = 0;
        for (double s : squares_) total += s;
        for (const Norm<T>& norm : model_.norms().all())
            for (std::int64_t j = 0; j < norm.width; ++j)
                total += static_cast<double>(norm.d_weight[j]) * norm.d_weight[j] +
                         static_cast<double>(norm.d_bias[j]) * norm.d_bias[j];
        result_.gradient_norm = std::sqrt(total);
        unit_queue_.reset(static_cast<std::int64_t>(units_.size()));
    }
    team.barrier();
    // As torch.nn.utils.clip_grad_norm_: the guard keeps a zero gradient from dividing by zero.
    const double factor = clip_norm > 0 ? clip_norm / (result_.gradient_norm + 1e-6) : 1;
    if (factor >= 1) return;
    auto scale = [factor](T* g, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) g[i] = static_cast<T>(g[i] * factor);
    };
    while (unit_queue_.take(index)) visit_gradient(units_[index], scale);
    if (team.rank() == 0)
        for (Norm<T>& norm : model_.norms().all())
            scale(norm.d_weight.data(), norm.width), scale(norm.d_bias.data(), norm.width);
    team.barrier();
}

template <class T>
void Backpropagation<T>::update(OptimizerState<T>& state) {
    const std::int64_t width = model_.kernels().panel;
    std::int64_t index;
    while (update_queue_.take(index)) {
        const Unit& unit = units_[index];
        const int weight = unit.step->weight, bias = unit.step->bias;
        const Parameter& p = model_.parameters().all[weight];
        UpdateArgs<T> args;
        args.inner = p.rows;
        args.columns = p.columns;
        args.first_panel = unit.panel;
        args.last_panel = unit.panel + 1;
        args.gradient = gradients_[weight].data();
        args.weight = state.slot(weight);
        args.transposed = model_.store().transposed(weight);
        args.optimizer = state.settings().optimizer;
        args.hyper = state.hyper(weight);
        model_.kernels().update(args);
        if (bias < 0) continue;
        const std::int64_t first = unit.panel * width;
        UpdateVectorArgs<T> vector;
        vector.size = std::min(width, p.columns - first);
        vector.gradient = gradients_[bias].data() + first;
        vector.slot = state.slot(bias);
        vector.slot.value += first;
        for (int i = 0; i < state.arrays(); ++i) vector.slot.state[i] += first;
        vector.optimizer = state.settings().optimizer;
        vector.hyper = state.hyper(bias);
        model_.kernels().update_vector(vector);
    }
}

template <class T>
void Backpropagation<T>::update_norms(OptimizerState<T>& state) {
    for (Norm<T>& norm : model_.norms().all()) {
        if (norm.width == 0) continue;
        auto apply = [&](int id, const T* gradient) {
            UpdateVectorArgs<T> args;
            args.size = norm.width;
            args.gradient = gradient;
            args.slot = state.slot(id);
            args.optimizer = state.settings().optimizer;
            args.hyper = state.hyper(id);
            model_.kernels().update_vector(args);
        };
        apply(norm.parameters->norm_weight, norm.d_weight.data());
        apply(norm.parameters->norm_bias, norm.d_bias.data());
    }
}

template <class T>
const T* Backpropagation<T>::gradient(int id) const {
    const Parameter& p = model_.parameters().all[id];
    if (p.role == Role::norm_weight) return model_.norms().of_layer(p.layer).d_weight.data();
    if (p.role == Role::norm_bias) return model_.norms().of_layer(p.layer).d_bias.data();
    return gradients_[id].size() > 0 ? gradients_[id].data() : nullptr;
}

template <class T>
Rows<T> Backpropagation<T>::input_gradient() const {
    return executor_.rows(executor_.plan().input_gradient, last_frame_);
}

template class Backpropagation<float>;
template class Backpropagation<double>;

}  // namespace resnetcore

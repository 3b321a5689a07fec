#include "train/weight_gradients.h"

#include <algorithm>

#include "runtime/caches.h"
#include "runtime/tiles.h"
#include "runtime/vector_calls.h"

namespace resnetcore {

template <class T>
std::vector<WeightUnit> weight_units(const Model<T>& model, const std::vector<WeightStep>& steps) {
    auto panels = [&](const WeightStep& step) {
        return panel_count(model.parameters().all[step.weight].columns, model.kernels().panel);
    };
    std::int64_t all = 0;
    for (const WeightStep& step : steps) all += panels(step);
    // What is done to the rows of A is done once for all panels of a unit; but all threads must have some units.
    constexpr std::int64_t enough_units = 64;
    const std::int64_t of_a_unit =
        model.device().is_host() ? std::clamp<std::int64_t>(all / enough_units, 1, panels_of_sums) : all;
    std::vector<WeightUnit> units;
    for (std::size_t s = 0; s < steps.size(); ++s)
        for (std::int64_t first = 0; first < panels(steps[s]); first += of_a_unit)
            units.push_back({static_cast<int>(s), steps[s].weight, steps[s].bias, first,
                             std::min(first + of_a_unit, panels(steps[s]))});
    return units;
}

template <class T>
BackwardWeightsArgs<T> weight_args(const Model<T>& model, const WeightStep& step, Rows<T> a, Rows<T> delta,
                                   std::int64_t rows) {
    const Parameter& p = model.parameters().all[step.weight];
    BackwardWeightsArgs<T> args;
    args.rows = rows;
    args.inner = p.rows;
    args.columns = p.columns;
    args.last_panel = panel_count(p.columns, model.kernels().panel);
    args.a = a;
    args.delta = delta;
    args.has_bias = step.bias >= 0;
    return args;
}

template <class T>
WeightGradients<T>::WeightGradients(Model<T>& model, const std::vector<WeightUnit>& units)
    : model_(model), units_(units), squares_(model.device()) {
    for (std::size_t id = 0; id < model.parameters().all.size(); ++id) arrays_.emplace_back(model.device());
}

// Panels whose sums wait for more rows together: where a kernel lays out a stretch of A once for all of them, as many
// as leave half of the second-level cache to it; what it lays out for several stretches is large itself.
template <class T>
std::int64_t WeightGradients<T>::waiting_panels(std::int64_t inner) const {
    const KernelTable<T>& kernels = model_.kernels();
    if (kernels.most_laid_out > 0 || kernels.stretch_room(rows_, inner) == 0) return panels_of_sums;
    const std::int64_t panel_bytes = inner * kernels.panel * static_cast<std::int64_t>(sizeof(Compute<T>));
    return std::clamp(caches().level2 / 2 / std::max<std::int64_t>(panel_bytes, 1), panels_of_sums, 4 * panels_of_sums);
}

// Units are the same for any number of threads, as sums of squares are by unit. Where a kernel lays out rows of A, and
// does that once for all panels of a call, a call has as many units as leave each thread some calls.
template <class T>
void WeightGradients<T>::group_units(int threads) {
    constexpr std::int64_t calls_of_a_thread = 8;
    const KernelTable<T>& kernels = model_.kernels();
    const auto count = static_cast<std::int64_t>(units_.size());
    const std::int64_t balanced = std::max<std::int64_t>(count / (calls_of_a_thread * threads), 1);
    for (std::int64_t first = 0, next = 0; first < count; first = next) {
        while (next < count && units_[next].step == units_[first].step) ++next;
        const WeightUnit& unit = units_[static_cast<std::size_t>(first)];
        const std::int64_t inner = model_.parameters().all[unit.weight].rows;
        std::int64_t most = balanced;
        if (kernels.stretch_room(rows_, inner) == 0)
            most = 1;
        else if (kernels.most_laid_out == 0)
            most = std::clamp<std::int64_t>(waiting_panels(inner) / (unit.last_panel - unit.first_panel), 1, balanced);
        const std::int64_t units = next - first, parts = (units + most - 1) / most;
        for (std::int64_t part = 0; part < parts; ++part)
            groups_.push_back({unit.step, unit.weight,
                               units_[static_cast<std::size_t>(first + units * part / parts)].first_panel,
                               units_[static_cast<std::size_t>(first + units * (part + 1) / parts - 1)].last_panel});
    }
}

// What each thread has of every weight, in rounds of a group for each thread, as the queue has them; of few panels some
// are empty. Sums that are kept apart are of no more panels than wait in memory together elsewhere.
template <class T>
void WeightGradients<T>::group_columns(int threads, Kept kept) {
    for (std::size_t first = 0, next = 0; first < units_.size(); first = next) {
        while (next < units_.size() && units_[next].step == units_[first].step) ++next;
        const WeightUnit& unit = units_[first];
        const std::int64_t panels = units_[next - 1].last_panel, longest = (panels + threads - 1) / threads;
        const std::int64_t most =
            kept == Kept::apart ? waiting_panels(model_.parameters().all[unit.weight].rows) : longest;
        const std::int64_t rounds = (longest + most - 1) / most;
        for (std::int64_t round = 0; round < rounds; ++round)
            for (int thread = 0; thread < threads; ++thread) {
                const Share share = share_of(panels, thread, threads);
                const std::int64_t size = share.last - share.first;
                groups_.push_back({unit.step, unit.weight, share.first + size * round / rounds,
                                   share.first + size * (round + 1) / rounds});
            }
    }
}

template <class T>
void WeightGradients<T>::prepare(std::int64_t rows, int threads, Kept kept, bool by_columns) {
    rows_ = rows;
    groups_.clear();
    groups_.reserve(units_.size() * static_cast<std::size_t>(threads));  // in either way: the next pass may be divided
    if (by_columns)
        group_columns(threads, kept);
    else
        group_units(threads);
    const std::int64_t panel = model_.kernels().panel;
    std::int64_t room = 0, sums = 0;
    for (const Group& group : groups_) {
        const std::int64_t inner = model_.parameters().all[group.weight].rows;
        room = std::max(room, model_.kernels().stretch_room(rows, inner));  // fewer rows of W may need more of it
        const std::int64_t panels = group.last_panel - group.first_panel;
        sums = std::max(sums, (kept == Kept::apart ? panels : std::min(panels, waiting_panels(inner))) * inner * panel);
    }
    while (static_cast<int>(rooms_.size()) < threads)
        rooms_.push_back({AlignedArray<Compute<T>>(model_.device()), AlignedArray<T>(model_.device())});
    for (int thread = 0; thread < threads; ++thread) {  // fewer threads take larger groups
        if (kept != Kept::in_arrays) rooms_[thread].sums.reserve(sums);
        rooms_[thread].stretch.reserve(room);
    }
    for (WorkQueue* queue : {&squares_queue_, &scale_queue_, &update_queue_}) queue->reserve(threads);
    if (model_.kernels().backward_all_weights) calls_.reserve(units_.size());
    if (kept != Kept::in_arrays) return;
    for (const WeightUnit& unit : units_)
        for (int id : {unit.weight, unit.bias})
            if (id >= 0) arrays_[id].reserve(model_.store().packed_elements(id));
    squares_.reserve(squares_of_pair() * static_cast<std::int64_t>(units_.size() + model_.norms().all().size()));
}

template <class T>
void WeightGradients<T>::begin(int threads) {
    for (WorkQueue* queue : {&squares_queue_, &scale_queue_, &update_queue_})
        queue->reset(static_cast<std::int64_t>(units_.size()), threads);
}

template <class T>
void WeightGradients<T>::direct(BackwardWeightsArgs<T>& args, const WeightStep& step, bool first, int thread) {
    args.room = rooms_[thread].stretch.data();
    args.waiting_panels = waiting_panels(args.inner);
    args.gradient = arrays_[step.weight].data();
    if (args.has_bias) args.bias_gradient = arrays_[step.bias].data();
    args.accumulate = !first;
}

template <class T>
void WeightGradients<T>::direct(BackwardWeightsArgs<T>& args, const WeightStep& step, OptimizerState<T>& state,
                                const Outcome* permission, int thread) {
    args.sums = rooms_[thread].sums.data();
    args.room = rooms_[thread].stretch.data();
    args.waiting_panels = waiting_panels(args.inner);
    args.weight = state.slot(step.weight);
    args.operands = model_.store().operands(step.weight);
    args.optimizer = state.settings().optimizer;
    args.weight_hyper = state.hyper(step.weight);
    args.permission = permission;
    if (args.has_bias) args.bias = state.slot(step.bias), args.bias_hyper = state.hyper(step.bias);
}

template <class T>
void WeightGradients<T>::direct_apart(BackwardWeightsArgs<T>& args, int thread) {
    const std::int64_t width = model_.kernels().panel, begin = args.first_panel * width;
    args.room = rooms_[thread].stretch.data();
    args.waiting_panels = waiting_panels(args.inner);
    args.gradient = rooms_[thread].sums.data();
    args.columns = std::min(args.last_panel * width, args.columns) - begin;
    args.delta.data += begin;
    args.last_panel -= args.first_panel;
    args.first_panel = 0;
}

template <class T>
void WeightGradients<T>::add(const WeightStep& step, Rows<T> a, Rows<T> delta, std::int64_t rows, bool first,
                             int thread) {
    BackwardWeightsArgs<T> args = weight_args(model_, step, a, delta, rows);
    direct(args, step, first, thread);
    model_.kernels().backward_weights(args);
}

// The gradient elements that belong to a unit; visit(elements, number of them).
template <class T>
template <class Visit>
void WeightGradients<T>::visit(const WeightUnit& unit, Visit visit) {
    const Parameter& p = model_.parameters().all[unit.weight];
    const std::int64_t width = model_.kernels().panel, first = unit.first_panel * width, last = unit.last_panel * width;
    visit(arrays_[unit.weight].data() + first * p.rows, (last - first) * p.rows);
    if (unit.bias >= 0) visit(arrays_[unit.bias].data() + first, std::min(last, p.columns) - first);
}
template <class T>
template <class Visit>
void WeightGradients<T>::visit_norms(Visit visit) {
    for (Norm<T>& norm : model_.norms().all()) {
        if (norm.width == 0) continue;
        visit(norm.d_weight.data(), norm.width);
        visit(norm.d_bias.data(), norm.width);
    }
}

// Squares are summed array by array of each unit and then in order, so that the norm does not depend on who summed
// what. What no array has stays zero.
template <class T>
void WeightGradients<T>::clip(Team& team, double largest, double* norm, double* factor) {
    const KernelTable<T>& kernels = model_.kernels();
    std::int64_t index;
    const auto sum_to = [&](double* to) {
        return [&kernels, to](const Compute<T>* g, std::int64_t n) mutable {
            kernels.squares({n, g, to});
            to += kernels.square_parts;
        };
    };
    const std::int64_t pair = squares_of_pair();
    while (squares_queue_.take(team.rank(), index)) visit(units_[index], sum_to(squares_.data() + pair * index));
    if (team.rank() == 0) visit_norms(sum_to(squares_.data() + pair * units_.size()));
    team.barrier();
    if (team.rank() == 0) kernels.clip({squares_.size(), squares_.data(), largest, norm, factor});
    team.barrier();
    const auto scale = [&](Compute<T>* g, std::int64_t n) { kernels.scale({n, factor, g}); };
    while (scale_queue_.take(team.rank(), index)) visit(units_[index], scale);
    if (team.rank() == 0) visit_norms(scale);
    team.barrier();
}

template <class T>
void WeightGradients<T>::update(Team& team, OptimizerState<T>& state, const Outcome* permission) {
    std::int64_t index;
    while (update_queue_.take(team.rank(), index)) update_unit(units_[index], state, permission);
    team.barrier();
}

template <class T>
void WeightGradients<T>::update_unit(const WeightUnit& unit, OptimizerState<T>& state, const Outcome* permission) {
    const Parameter& p = model_.parameters().all[unit.weight];
    UpdateArgs<T> args;
    args.inner = p.rows;
    args.columns = p.columns;
    args.first_panel = unit.first_panel;
    args.last_panel = unit.last_panel;
    args.gradient = arrays_[unit.weight].data();
    args.weight = state.slot(unit.weight);
    args.operands = model_.store().operands(unit.weight);
    args.optimizer = state.settings().optimizer;
    args.hyper = state.hyper(unit.weight);
    args.permission = permission;
    model_.kernels().update(args);
    if (unit.bias < 0) return;
    const std::int64_t width = model_.kernels().panel, first = unit.first_panel * width;
    UpdateVectorsArgs<T> vectors;
    UpdatedVector<T>& bias = vectors.vectors[vectors.count++];
    bias.size = std::min(unit.last_panel * width, p.columns) - first;
    bias.gradient = arrays_[unit.bias].data() + first;
    bias.slot = state.slot(unit.bias);
    bias.slot.value += first;
    for (int i = 0; i < state.arrays(); ++i) bias.slot.state[i] += first;
    bias.hyper = state.hyper(unit.bias);
    vectors.optimizer = state.settings().optimizer;
    vectors.permission = permission;
    model_.kernels().update_vectors(vectors);
}

template <class T>
void update_norms(Model<T>& model, OptimizerState<T>& state, const Outcome* permission) {
    UpdateVectorsArgs<T> all;
    all.optimizer = state.settings().optimizer;
    all.permission = permission;
    VectorCalls<UpdateVectorsArgs<T>> calls(model.kernels().update_vectors, all);
    for (const Norm<T>& norm : model.norms().all()) {
        if (norm.width == 0) continue;
        const auto add = [&](int id, const AlignedArray<Compute<T>>& gradient) {
            calls.add(UpdatedVector<T>{norm.width, gradient.data(), state.slot(id), state.hyper(id)});
        };
        add(norm.parameters->norm_weight, norm.d_weight);
        add(norm.parameters->norm_bias, norm.d_bias);
    }
}

template std::vector<WeightUnit> weight_units(const Model<float>&, const std::vector<WeightStep>&);
template std::vector<WeightUnit> weight_units(const Model<double>&, const std::vector<WeightStep>&);
template std::vector<WeightUnit> weight_units(const Model<bfloat16>&, const std::vector<WeightStep>&);
template std::vector<WeightUnit> weight_units(const Model<bfloat16x2>&, const std::vector<WeightStep>&);
template BackwardWeightsArgs<float> weight_args(const Model<float>&, const WeightStep&, Rows<float>, Rows<float>,
                                                std::int64_t);
template BackwardWeightsArgs<double> weight_args(const Model<double>&, const WeightStep&, Rows<double>, Rows<double>,
                                                 std::int64_t);
template BackwardWeightsArgs<bfloat16> weight_args(const Model<bfloat16>&, const WeightStep&, Rows<bfloat16>,
                                                   Rows<bfloat16>, std::int64_t);
template BackwardWeightsArgs<bfloat16x2> weight_args(const Model<bfloat16x2>&, const WeightStep&, Rows<bfloat16x2>,
                                                     Rows<bfloat16x2>, std::int64_t);
template void update_norms(Model<float>&, OptimizerState<float>&, const Outcome*);
template void update_norms(Model<double>&, OptimizerState<double>&, const Outcome*);
template void update_norms(Model<bfloat16>&, OptimizerState<bfloat16>&, const Outcome*);
template void update_norms(Model<bfloat16x2>&, OptimizerState<bfloat16x2>&, const Outcome*);
template class WeightGradients<float>;
template class WeightGradients<double>;
template class WeightGradients<bfloat16>;
template class WeightGradients<bfloat16x2>;

}  // namespace resnetcore

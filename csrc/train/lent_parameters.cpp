#include "train/lent_parameters.h"

#include <algorithm>

#include "runtime/gathered.h"

namespace resnetcore {
namespace {

// Of a matrix: few enough for threads to have shares alike.
constexpr std::int64_t piece_bytes = 256 << 10;
// What a pass reads of the weights and its gradients, from where on most of it comes from memory whatever wrote it.
constexpr std::int64_t past_caches_bytes = 32 << 20;

}  // namespace

template <class T>
LentParameters<T>::LentParameters(Model<T>& model, bool transposed)
    : model_(model), transposed_(transposed), row_major_(model.device()) {
    const std::int64_t panel = model.kernels().panel;
    const auto& all = model.parameters().all;
    // What both halves read, and the gradients.
    const auto element_bytes = static_cast<std::int64_t>(2 * sizeof(T) + sizeof(Compute<T>));
    past_caches_ = model.device().is_host() && model.weight_elements() * element_bytes > past_caches_bytes;
    for (std::size_t id = 0; id < all.size(); ++id) {
        const Parameter& p = all[id];
        std::int64_t parts = 1;
        if (p.is_matrix() && model.device().is_host())
            parts = std::clamp<std::int64_t>(p.size() * static_cast<std::int64_t>(sizeof(Compute<T>)) / piece_bytes, 1,
                                             std::min(panel_count(p.columns, panel), panel_count(p.rows, panel)));
        for (std::int64_t part = 0; part < parts; ++part)
            pieces_.push_back({static_cast<int>(id), {part, parts, past_caches_}});
    }
}

template <class T>
typename LentParameters<T>::Loan LentParameters<T>::lend(const std::vector<const Compute<T>*>& values, Half half,
                                                         const GradientArrays<T>* gradients) {
    lent_ = &values, to_ = gradients, half_ = half;
    // Halves that are lent for different passes may be of different moments.
    model_.store().fill_by_halves(half != Half::both);
    return {*this};
}

template <class T>
void LentParameters<T>::prepare(int threads) {
    if (!model_.kernels().unpack_transposed)
        for (const Parameter& p : model_.parameters().all) row_major_.reserve(p.size());
    for (WorkQueue* queue : {&write_queue_, &give_queue_}) queue->reserve(threads);
    write_queue_.reset(static_cast<std::int64_t>(pieces_.size()), threads);
    give_queue_.reset(static_cast<std::int64_t>(model_.parameters().all.size()), threads);
}

template <class T>
void LentParameters<T>::write(Team& team) {
    ParameterStore<T>& store = model_.store();
    std::int64_t index;
    while (write_queue_.take(team.rank(), index)) {
        const Piece& piece = pieces_[static_cast<std::size_t>(index)];
        const Compute<T>* const given = (*lent_)[static_cast<std::size_t>(piece.id)];
        if (half_ != Half::backward) store.write_forward(piece.id, given, transposed_, piece.part);
        if (half_ != Half::forward) store.write_backward(piece.id, given, transposed_, piece.part);
    }
    team.barrier();
}

template <class T>
void LentParameters<T>::take_units(WeightGradients<T>& gradients, WorkQueue& queue, int thread,
                                   const BatchExecutor<T>& executor, const Frame<T>& frame) {
    const KernelTable<T>& kernels = model_.kernels();
    const bool apart = kept(false) == Kept::apart;
    const auto unpack_transposed = past_caches_ && kernels.unpack_transposed_past_caches
                                       ? kernels.unpack_transposed_past_caches
                                       : kernels.unpack_transposed;
    const auto to = [&](int id) { return (*to_)[static_cast<std::size_t>(id)]; };
    std::int64_t column = 0;  // the call's first, of its weight's
    gradients.take_units(
        queue, thread, executor, frame,
        [&](BackwardWeightsArgs<T>& args, const WeightStep& step) {
            if (!apart) return gradients.direct(args, step, true, thread);
            column = args.first_panel * kernels.panel;
            gradients.direct_apart(args, thread);
            if (args.has_bias) args.bias_gradient = to(step.bias) + column;
        },
        [&](const BackwardWeightsArgs<T>& args, const WeightStep& step) {
            if (!apart) return;
            const std::int64_t inner = args.inner, width = model_.parameters().all[step.weight].columns;
            if (transposed_)
                unpack_transposed(inner, args.columns, args.gradient, {to(step.weight) + column * inner, inner});
            else
                kernels.unpack(inner, args.columns, args.gradient, {to(step.weight) + column, width});
        });
}

template <class T>
void LentParameters<T>::give(Team& team, const WeightGradients<T>& gradients, Kept kept) {
    std::int64_t index;
    while (give_queue_.take(team.rank(), index)) {
        const int id = static_cast<int>(index);
        const Parameter& p = model_.parameters().all[id];
        Compute<T>* const to = (*to_)[id];
        if (!to) continue;
        const auto copy = [&](const Compute<T>* vector) {
            model_.device().copy(to, vector, static_cast<std::size_t>(p.columns) * sizeof(Compute<T>));
        };
        if (p.role == Role::norm_weight)
            copy(model_.norms().of_layer(p.layer).d_weight.data());
        else if (p.role == Role::norm_bias)
            copy(model_.norms().of_layer(p.layer).d_bias.data());
        else if (kept == Kept::in_arrays && p.is_matrix())
            unpack(p.rows, p.columns, gradients.array(id), to);
        else if (kept == Kept::in_arrays)
            copy(gradients.array(id));
    }
    team.barrier();
}

template <class T>
void LentParameters<T>::unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* packed, Compute<T>* to) {
    const KernelTable<T>& kernels = model_.kernels();
    if (!transposed_) return kernels.unpack(inner, columns, packed, {to, columns});
    if (kernels.unpack_transposed) return kernels.unpack_transposed(inner, columns, packed, {to, inner});
    kernels.unpack(inner, columns, packed, {row_major_.data(), columns});
    gather_strided(model_.device(), columns, inner, row_major_.data(), 1, columns, to);
}

template class LentParameters<float>;
template class LentParameters<double>;
template class LentParameters<bfloat16>;
template class LentParameters<bfloat16x2>;

}  // namespace resnetcore

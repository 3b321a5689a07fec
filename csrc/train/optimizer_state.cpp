#include "train/optimizer_state.h"

#include <cmath>

namespace resnetcore {

template <class T>
OptimizerState<T>::OptimizerState(Model<T>& model, const OptimizerSettings& settings)
    : model_(model), settings_(settings), arrays_(optimizer_states(settings.optimizer)) {
    const auto& all = model.parameters().all;
    for (std::size_t id = 0; id < all.size(); ++id)
        for (int i = 0; i < arrays_; ++i)
            states_.emplace_back(model.device(),
                                 all[id].trained ? model.store().packed_elements(static_cast<int>(id)) : 0);
}

template <class T>
bool OptimizerState<T>::decays(int id) const {
    return !settings_.decay_weights_only || model_.parameters().all[id].is_matrix();
}

template <class T>
Hypers<T> OptimizerState<T>::hypers(double lr, std::int64_t between) const {
    const double t = static_cast<double>(steps_ + between + 1);
    Hyper<Compute<T>> h;
    h.lr = static_cast<Compute<T>>(lr);
    h.momentum = static_cast<Compute<T>>(settings_.momentum);
    h.nesterov = settings_.nesterov;
    h.weight_decay = static_cast<Compute<T>>(settings_.weight_decay);
    h.beta1 = static_cast<Compute<T>>(settings_.beta1);
    h.beta2 = static_cast<Compute<T>>(settings_.beta2);
    h.one_minus_beta1 = static_cast<Compute<T>>(1 - settings_.beta1);
    h.one_minus_beta2 = static_cast<Compute<T>>(1 - settings_.beta2);
    h.eps = static_cast<Compute<T>>(settings_.eps);
    h.step_size = static_cast<Compute<T>>(lr / (1 - std::pow(settings_.beta1, t)));
    h.root_correction = static_cast<Compute<T>>(std::sqrt(1 - std::pow(settings_.beta2, t)));
    Hypers<T> both = {h, h};
    both[1].weight_decay = 0;
    return both;
}

template <class T>
Slot<Compute<T>> OptimizerState<T>::slot(int id) {
    Slot<Compute<T>> slot;
    slot.value = model_.store().values(id);
    for (int i = 0; i < arrays_; ++i) slot.state[i] = array(id, i);
    return slot;
}

template class OptimizerState<float>;
template class OptimizerState<double>;
template class OptimizerState<bfloat16>;
template class OptimizerState<bfloat16x2>;

}  // namespace resnetcore

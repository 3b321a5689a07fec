#include "runtime/norms.h"

namespace resnetcore {

template <class T>
Norms<T>::Norms(const Topology& topology, const ParameterList& list, ParameterStore<T>& store, Device& device)
    : store_(store), device_(device), kernels_(device.kernels<T>()), norms_(topology.layers.size()) {
    for (std::size_t i = 0; i < norms_.size(); ++i) {
        const LayerParameters& own = list.layers[i];
        if (own.norm_weight < 0) continue;
        Norm<T>& norm = norms_[i];
        norm.width = list.all[own.norm_weight].columns;
        norm.parameters = &own;
        for (auto* array : {&norm.mean, &norm.inverse_deviation, &norm.scale, &norm.shift, &norm.mean_d, &norm.mean_dx,
                            &norm.d_weight, &norm.d_bias, &norm.next_mean, &norm.next_var})
            *array = AlignedArray<Compute<T>>(device, norm.width);
    }
}

template <class T>
void Norms<T>::use_running_statistics() {
    for (Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        const LayerParameters& own = *norm.parameters;
        kernels_.running_coefficients({norm.width, store_.values(own.running_mean), store_.values(own.running_var),
                                       store_.values(own.norm_weight), store_.values(own.norm_bias),
                                       norm.coefficients()});
    }
}

template <class T>
void Norms<T>::begin_step() {
    for (Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        device_.copy(norm.next_mean.data(), store_.values(norm.parameters->running_mean), norm.next_mean.bytes());
        device_.copy(norm.next_var.data(), store_.values(norm.parameters->running_var), norm.next_var.bytes());
        device_.clear(norm.d_weight.data(), norm.d_weight.bytes());
        device_.clear(norm.d_bias.data(), norm.d_bias.bytes());
    }
}

template <class T>
void Norms<T>::commit_running_statistics(const Outcome* permission) {
    for (Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        const LayerParameters& own = *norm.parameters;
        kernels_.commit({norm.width, norm.next_mean.data(), store_.values(own.running_mean), permission});
        kernels_.commit({norm.width, norm.next_var.data(), store_.values(own.running_var), permission});
    }
}

template <class T>
void Norms<T>::combine_moments(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end) {
    if (frozen_) return;
    kernels_.combine_moments({begin, end, sums, store_.values(norm.parameters->norm_weight),
                              store_.values(norm.parameters->norm_bias), norm.coefficients(), norm.next_mean.data(),
                              norm.next_var.data()});
}

template <class T>
void Norms<T>::combine_gradient(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end) {
    kernels_.combine_norm_sums(
        {begin, end, sums, frozen_, norm.mean_d.data(), norm.mean_dx.data(), norm.d_weight.data(), norm.d_bias.data()});
}

template class Norms<float>;
template class Norms<double>;
template class Norms<bfloat16>;
template class Norms<bfloat16x2>;

}  // namespace resnetcore

#include "runtime/norms.h"

#include "runtime/vector_calls.h"

namespace resnetcore {

template <class T>
Norms<T>::Norms(const Topology& topology, const ParameterList& list, ParameterStore<T>& store, Device& device)
    : store_(store), kernels_(device.kernels<T>()), norms_(topology.layers.size()) {
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
void Norms<T>::commit_running_statistics(const Outcome* permission) {
    CommitArgs<T> all;
    all.permission = permission;
    VectorCalls<CommitArgs<T>> calls(kernels_.commit, all);
    for (const Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        const LayerParameters& own = *norm.parameters;
        calls.add(CommittedVector<T>{norm.width, norm.next_mean.data(), store_.values(own.running_mean)});
        calls.add(CommittedVector<T>{norm.width, norm.next_var.data(), store_.values(own.running_var)});
    }
}

template <class T>
CombineMomentsArgs<T> Norms<T>::from_moments(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin,
                                             std::int64_t end, bool continues) {
    const LayerParameters& own = *norm.parameters;
    return {begin,
            end,
            sums,
            store_.values(own.norm_weight),
            store_.values(own.norm_bias),
            norm.coefficients(),
            continues ? norm.next_mean.data() : store_.values(own.running_mean),
            continues ? norm.next_var.data() : store_.values(own.running_var),
            norm.next_mean.data(),
            norm.next_var.data()};
}

template <class T>
CombineNormSumsArgs<T> Norms<T>::from_norm_sums(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin,
                                                std::int64_t end, bool continues) {
    return {begin,
            end,
            sums,
            frozen_,
            continues,
            norm.mean_d.data(),
            norm.mean_dx.data(),
            norm.d_weight.data(),
            norm.d_bias.data()};
}

template class Norms<float>;
template class Norms<double>;
template class Norms<bfloat16>;
template class Norms<bfloat16x2>;

}  // namespace resnetcore

#include "runtime/norms.h"

#include <algorithm>
#include <cmath>

namespace resnetcore {

template <class T>
Norms<T>::Norms(const Topology& topology, const ParameterList& list, ParameterStore<T>& store)
    : store_(store), norms_(topology.layers.size()) {
    for (std::size_t i = 0; i < norms_.size(); ++i) {
        const LayerParameters& own = list.layers[i];
        if (own.norm_weight < 0) continue;
        Norm<T>& norm = norms_[i];
        norm.width = list.all[own.norm_weight].columns;
        norm.parameters = &own;
        for (auto* array : {&norm.mean, &norm.inverse_deviation, &norm.scale, &norm.shift, &norm.mean_d, &norm.mean_dx,
                            &norm.d_weight, &norm.d_bias, &norm.next_mean, &norm.next_var})
            *array = AlignedArray<Compute<T>>(norm.width);
    }
}

template <class T>
void Norms<T>::set_coefficients(Norm<T>& norm, std::int64_t column, double mean, double variance) {
    const double inverse = 1 / std::sqrt(variance + norm_eps);
    norm.mean[column] = static_cast<Compute<T>>(mean);
    norm.inverse_deviation[column] = static_cast<Compute<T>>(inverse);
    norm.scale[column] = static_cast<Compute<T>>(store_.values(norm.parameters->norm_weight)[column] * inverse);
    norm.shift[column] = store_.values(norm.parameters->norm_bias)[column];
}

template <class T>
void Norms<T>::use_running_statistics() {
    for (Norm<T>& norm : norms_)
        for (std::int64_t j = 0; j < norm.width; ++j)
            set_coefficients(norm, j, store_.values(norm.parameters->running_mean)[j],
                             store_.values(norm.parameters->running_var)[j]);
}

template <class T>
void Norms<T>::begin_step() {
    for (Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        std::copy_n(store_.values(norm.parameters->running_mean), norm.width, norm.next_mean.data());
        std::copy_n(store_.values(norm.parameters->running_var), norm.width, norm.next_var.data());
        std::fill_n(norm.d_weight.data(), norm.width, Compute<T>(0));
        std::fill_n(norm.d_bias.data(), norm.width, Compute<T>(0));
    }
}

template <class T>
void Norms<T>::commit_running_statistics() {
    for (Norm<T>& norm : norms_) {
        if (norm.width == 0) continue;
        std::copy_n(norm.next_mean.data(), norm.width, store_.values(norm.parameters->running_mean));
        std::copy_n(norm.next_var.data(), norm.width, store_.values(norm.parameters->running_var));
    }
}

// Chan, Golub & LeVeque 1979: chunk means and squared deviations into those of all rows. Biased variance in the
// batch, unbiased in the running statistics (Ioffe & Szegedy 2015, algorithm 2).
template <class T>
void Norms<T>::combine_moments(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end) {
    if (frozen_) return;
    const double n = static_cast<double>(sums.rows);
    for (std::int64_t j = begin; j < end; ++j) {
        double mean = 0, squares = 0;
        for (std::int64_t c = 0; c < sums.chunks(); ++c)
            mean += sums.rows_of(c) * static_cast<double>(sums.first(c)[j]);
        mean /= n;
        for (std::int64_t c = 0; c < sums.chunks(); ++c) {
            const double apart = sums.first(c)[j] - mean;
            squares += sums.second(c)[j] + sums.rows_of(c) * apart * apart;
        }
        set_coefficients(norm, j, mean, squares / n);
        auto carry = [](Compute<T>& running, double now) {
            running = static_cast<Compute<T>>((1 - norm_momentum) * running + norm_momentum * now);
        };
        carry(norm.next_mean[j], mean);
        carry(norm.next_var[j], squares / (n - 1));
    }
}

template <class T>
void Norms<T>::combine_gradient(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end) {
    const double n = static_cast<double>(sums.rows);
    for (std::int64_t j = begin; j < end; ++j) {
        double sum = 0, sum_xhat = 0;
        for (std::int64_t c = 0; c < sums.chunks(); ++c) {
            sum += sums.first(c)[j];
            sum_xhat += sums.second(c)[j];
        }
        norm.mean_d[j] = static_cast<Compute<T>>(frozen_ ? 0 : sum / n);
        norm.mean_dx[j] = static_cast<Compute<T>>(frozen_ ? 0 : sum_xhat / n);
        norm.d_bias[j] += static_cast<Compute<T>>(sum);
        norm.d_weight[j] += static_cast<Compute<T>>(sum_xhat);
    }
}

template class Norms<float>;
template class Norms<double>;
template class Norms<bfloat16>;
template class Norms<bfloat16x2>;

}  // namespace resnetcore

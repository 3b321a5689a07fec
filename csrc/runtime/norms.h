// Batch normalisation's numbers between its two phases: what the kernels read, and what the columns' sums become.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/aligned.h"
#include "runtime/parameters.h"
#include "runtime/thread_pool.h"
#include "topology/layer.h"

namespace resnetcore {

template <class T>
struct Norm {
    std::int64_t width = 0;
    const LayerParameters* parameters = nullptr;
    AlignedArray<Compute<T>> mean, inverse_deviation, scale, shift;  // x̂ = (z − mean)·inverse_deviation, y = x̂·γ + β
    AlignedArray<Compute<T>> mean_d, mean_dx;                        // of the backward pass
    AlignedArray<Compute<T>> d_weight, d_bias;                       // ∂E/∂γ, ∂E/∂β, summed over micro-batches
    AlignedArray<Compute<T>> next_mean, next_var;                    // running statistics, once the step is taken
    NormCoefficients<T> coefficients() { return {mean.data(), inverse_deviation.data(), scale.data(), shift.data()}; }
};

template <class T>
class Norms {
public:
    Norms(const Topology& topology, const ParameterList& list, ParameterStore<T>& store, Device& device);

    Norm<T>& of_layer(std::int64_t number) { return norms_[number - 1]; }
    const Norm<T>& of_layer(std::int64_t number) const { return norms_[number - 1]; }
    std::vector<Norm<T>>& all() { return norms_; }

    void use_running_statistics();  // coefficients for inference
    // Where that is permitted; see Outcome.
    void commit_running_statistics(const Outcome* permission);
    // From now on the statistics are numbers that do not depend on the batch, and running ones are not carried on.
    void freeze() { frozen_ = true; }
    bool frozen() const { return frozen_; }

    // What columns [begin, end) of a finished phase become. The first micro-batch of a step carries on the running
    // statistics and sets the gradients; one that `continues` goes on with what those before it have made of both.
    CombineMomentsArgs<T> from_moments(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end,
                                       bool continues);
    CombineNormSumsArgs<T> from_norm_sums(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin,
                                          std::int64_t end, bool continues);

private:
    ParameterStore<T>& store_;
    const KernelTable<T>& kernels_;
    std::vector<Norm<T>> norms_;
    bool frozen_ = false;
};

extern template class Norms<float>;
extern template class Norms<double>;
extern template class Norms<bfloat16>;
extern template class Norms<bfloat16x2>;

}  // namespace resnetcore

// Batch normalisation's numbers between its two phases: what the kernels read, and what the columns' sums become.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/aligned.h"
#include "runtime/parameters.h"
#include "runtime/thread_pool.h"
#include "topology/layer.h"

namespace resnetcore {

constexpr double norm_eps = 1e-5;
constexpr double norm_momentum = 0.1;

template <class T>
struct Norm {
    std::int64_t width = 0;
    const LayerParameters* parameters = nullptr;
    AlignedArray<Compute<T>> mean, inverse_deviation, scale, shift;  // x̂ = (z − mean)·inverse_deviation, y = x̂·γ + β
    AlignedArray<Compute<T>> mean_d, mean_dx;                        // of the backward pass
    AlignedArray<Compute<T>> d_weight, d_bias;                       // ∂E/∂γ, ∂E/∂β, summed over micro-batches
    AlignedArray<Compute<T>> next_mean, next_var;                    // running statistics, once the step is taken
};

// Partial column sums: two arrays of `width` for each chunk of rows.
template <class T>
struct PartialSums {
    Compute<T>* data = nullptr;
    std::int64_t width = 0, rows = 0, chunk = 0;
    Compute<T>* first(std::int64_t index) const { return data + 2 * index * width; }
    Compute<T>* second(std::int64_t index) const { return first(index) + width; }
    std::int64_t chunks() const { return (rows + chunk - 1) / chunk; }
    std::int64_t rows_of(std::int64_t index) const { return index + 1 < chunks() ? chunk : rows - index * chunk; }
};

template <class T>
class Norms {
public:
    Norms(const Topology& topology, const ParameterList& list, ParameterStore<T>& store);

    Norm<T>& of_layer(std::int64_t number) { return norms_[number - 1]; }
    std::vector<Norm<T>>& all() { return norms_; }

    void use_running_statistics();  // coefficients for inference
    void begin_step();              // running statistics to be carried forward, gradients zeroed
    void commit_running_statistics();
    // From now on the statistics are numbers that do not depend on the batch, and running ones are not carried on.
    void freeze() { frozen_ = true; }
    bool frozen() const { return frozen_; }

    // Columns [begin, end) of a finished phase; chunks are combined in order, in double.
    void combine_moments(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end);
    void combine_gradient(Norm<T>& norm, const PartialSums<T>& sums, std::int64_t begin, std::int64_t end);

private:
    void set_coefficients(Norm<T>& norm, std::int64_t column, double mean, double variance);
    ParameterStore<T>& store_;
    std::vector<Norm<T>> norms_;
    bool frozen_ = false;
};

extern template class Norms<float>;
extern template class Norms<double>;
extern template class Norms<bfloat16>;
extern template class Norms<bfloat16x2>;

}  // namespace resnetcore

// A stack of layers for a framework with gradients of its own: forward, and backward from a given ∂E/∂outputs; or both
// with a loss between them.
//
// Invariant: nothing is kept from call to call but room. Parameters come with each call, matrices as the framework has
// them, and are packed anew; what backward needs of a forward pass is in a tape, memory of the caller's that backward
// only reads. Arrays are all in memory of the device. One call at a time: both lock; work of a device that is not the
// host may still be under way at return.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "train/backpropagation.h"
#include "train/lent_parameters.h"
#include "train/model.h"
#include "train/strategy.h"
#include "train/targets.h"
#include "train/weight_gradients.h"

namespace resnetcore {

// Of how a tape lies, its size included; another one with each change. Exported programs outlive a version.
constexpr std::int64_t tape_layout = 6;

struct VjpOptions {
    bool training = true;        // batch statistics and dropout, rather than the running statistics
    bool input_gradient = true;  // whether backward gives ∂E/∂x
    bool transposed = true;      // matrices and their gradients are (out, in), as PyTorch's; or (in, out), as JAX's
};

// One forward pass, as both calls take it.
template <class T>
struct VjpPass {
    Rows<Compute<T>> x;
    std::int64_t rows = 0;
    std::uint64_t seed = 0;                 // of the dropout masks
    std::vector<const Compute<T>*> values;  // by parameter, buffers included
    void* tape = nullptr;  // Vjp::tape_bytes, aligned to 64; backward's may lie elsewhere than forward's did
};

template <class T>
class Vjp {
public:
    using Scalar = T;

    // Checks the topology. Throws BuildFeatureError where the device has no such kernels, as a program that was
    // exported elsewhere may find.
    Vjp(const Topology& topology, const VjpOptions& options, Device& device = host_device());

    const Topology& topology() const { return model_.topology(); }
    const ParameterList& parameters() const { return model_.parameters(); }
    const VjpOptions& options() const { return options_; }
    Device& device() const { return model_.device(); }
    std::int64_t outputs() const { return model_.outputs(); }
    // Bytes of a tape: so many, and so many for each row.
    std::int64_t tape_bytes() const { return header_bytes + norm_bytes_ + most_offset; }
    std::int64_t tape_bytes_of_row() const { return kept_elements_ * std::int64_t{sizeof(T)}; }

    // out: (rows, outputs), dense. `statistics`, by parameter, takes the running statistics carried on, in
    // training and where not null.
    void forward(const VjpPass<T>& pass, Compute<T>* out, const std::vector<Compute<T>*>& statistics);
    // d_out and d_x: (rows, width), dense; d_x is null without input_gradient. `gradients` by parameter: a matrix's as
    // the matrix, null of one that is not trained.
    void backward(const VjpPass<T>& pass, const Compute<T>* d_out, Compute<T>* d_x,
                  const std::vector<Compute<T>*>& gradients);
    // Both, with a mean loss between them, in one pass as a training step's: the loss. Rows of narrow layers go through
    // all of it while they are in cache. Of training alone, without a tape; where the loss is not finite, every
    // gradient is NaN.
    double loss(const VjpPass<T>& pass, const CheckedTargets<T>& targets, Compute<T>* d_x,
                const std::vector<Compute<T>*>& gradients, const std::vector<Compute<T>*>& statistics);

private:
    using Executor = BatchExecutor<T>;
    // What a tape begins with: how the rest lies, which backward must find although it might choose otherwise.
    struct Header {
        Strategy strategy;
        std::int32_t offset;  // of what is kept, whose rows begin where `row_alignment` says, behind the norms
    };
    static constexpr std::int64_t header_bytes = 64, most_offset = row_alignment<T> - 64;
    static_assert(sizeof(Header) <= header_bytes);

    bool has_tiles() const { return executors_[static_cast<int>(Strategy::by_tile)] != nullptr; }
    Strategy strategy_of(const VjpPass<T>& pass) const;
    Frame<T> frame_of(const VjpPass<T>& pass, T* kept);
    Header new_header(const VjpPass<T>& pass, Strategy strategy) const;
    T* kept(const VjpPass<T>& pass, const Header& header);
    int prepare(const VjpPass<T>& pass, Strategy strategy);
    Executor& executor() const { return *executors_[static_cast<int>(strategy_)]; }
    void visit_norms(void* tape, bool restore);
    void give_statistics(const std::vector<Compute<T>*>& statistics);

    const VjpOptions options_;
    Model<T> model_;
    std::unique_ptr<Executor> executors_[2];  // by strategy; none by tile where norms need every row
    Strategy strategy_ = Strategy::by_layer;  // of the pass
    const std::vector<WeightUnit> units_;
    WeightGradients<T> gradients_;
    LentParameters<T> lent_;
    std::unique_ptr<Backpropagation<T>> one_pass_;  // made when first used
    WorkQueue unit_queue_;
    std::int64_t norm_bytes_ = 0, kept_elements_ = 0;
    PhiloxKey dropout_;
    Staged<PhiloxKey> staged_dropout_;
    AlignedArray<T> moved_;  // what a tape keeps that came back on another boundary
};

extern template class Vjp<float>;
extern template class Vjp<double>;
extern template class Vjp<bfloat16>;
extern template class Vjp<bfloat16x2>;

}  // namespace resnetcore

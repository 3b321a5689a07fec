// What kernels are given for one step of a plan on one tile of rows: buffers and parameters as pointers, masks drawn.
// Never allocates once it is made.
#pragma once

#include <vector>

#include "kernels/ops.h"
#include "runtime/frame.h"
#include "runtime/norms.h"
#include "runtime/parameters.h"
#include "topology/plan.h"

namespace resnetcore {

// Normal paths with their norm folded in, for inference: panels and bias by weight parameter; empty where not folded.
template <class T>
struct Folded {
    AlignedArray<T> panels;
    AlignedArray<Compute<T>> bias;
};

// That so many threads divide the columns of products of all rows, and what is between them by `beside` rows at the
// most.
struct DividedColumns {
    std::int64_t rows = 0, beside = 0;
    int threads = 1;
};

template <class T>
class StepArguments {
public:
    // Masks, and gradients of the loss that are not stored yet, have room for so many rows a call; masks also for
    // `divided`.
    StepArguments(const Plan& plan, Device& device, const ParameterStore<T>& store, const Norms<T>& norms,
                  const std::vector<Folded<T>>* folded, std::int64_t rows, const DividedColumns& divided);

    bool has_mask_room(const DividedColumns& divided) const {
        return mask_room(masked_, divided) <= mask_.size() && mask_room(branch_masked_, divided) <= branch_mask_.size();
    }

    // Whether what a device's kernels keep of ReLU has room, by the path that they take now.
    bool has_pass_room() const;

    // A buffer from a row of the frame on.
    Rows<T> read(BufferId id, const Frame<T>& frame, std::int64_t row) const;
    MutableRows<T> write(BufferId id, const Frame<T>& frame, std::int64_t row) const;

    // Of a step's results.
    struct Columns {
        std::int64_t first, last;
    };

    // Of rows [begin, end) of the frame, and of all columns where none are given. Lists of terms, to which arguments of
    // products point, are there until they are forgotten; there is room for those of one step, or, where the device
    // takes chains, of all.
    void forget_terms() { sources_.clear(), identities_.clear(); }
    ForwardArgs<T> forward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);
    ForwardArgs<T> forward(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
        return forward(step, frame, begin, end, all_of(step));
    }
    BackwardDataArgs<T> backward_data(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);
    BackwardDataArgs<T> backward_data(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
        return backward_data(step, frame, begin, end, all_of(step));
    }
    MomentsArgs<T> moments(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end,
                           const PartialSums<T>&) const;
    NormSumsArgs<T> norm_sums(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end,
                              const PartialSums<T>&);
    NormBackwardArgs<T> norm_backward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);
    GateArgs<T> gate(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);
    GateBackwardArgs<T> gate_backward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end) const;
    LossArgs<T> loss(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);

private:
    static Columns all_of(const Step& step) { return {0, step.width}; }
    void reserve_terms();
    template <class Visit>
    void each_kept(Visit visit) const;
    void reserve_passes();
    Passes* passes(BufferId);
    template <class Args>
    void gather_terms(Args& args, const Step&, const Frame<T>&, std::int64_t row, bool transposed);
    MutableRows<Compute<T>> wide(const Step&, const Frame<T>&, std::int64_t row) const;
    Branch<T> branch(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);
    // Numbers that masks of layers so wide take.
    std::int64_t mask_room(std::int64_t width, const DividedColumns&) const;
    // Drawn of these columns alone.
    Rows<Compute<T>> mask(AlignedArray<Compute<T>>& memory, double probability, std::uint32_t site, const Step&,
                          const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);

    const Plan& plan_;
    Device& device_;
    const KernelTable<T>& kernels_;
    const ParameterStore<T>& store_;
    const Norms<T>& norms_;
    const std::vector<Folded<T>>* folded_;
    std::vector<std::int64_t> strides_;
    std::vector<Source<T>> sources_;
    std::vector<Rows<T>> identities_;
    AlignedArray<Compute<T>> mask_, branch_mask_;
    std::int64_t masked_ = 0, branch_masked_ = 0;  // the widest that have such masks
    AlignedArray<Compute<T>> unrounded_;           // gradients of the loss, before they are stored
    std::int64_t unrounded_stride_ = 0;
    const std::int64_t rows_;
    std::vector<Passes> passes_;  // of buffers
    AlignedArray<std::uint32_t> pass_bits_;
};

extern template class StepArguments<float>;
extern template class StepArguments<double>;
extern template class StepArguments<bfloat16>;
extern template class StepArguments<bfloat16x2>;

}  // namespace resnetcore

// Runs one step of a plan on one tile of rows: resolves buffers and parameters to pointers, then calls the kernel.
// Never allocates: each thread owns a StepRunner made before the run.
#pragma once

#include <vector>

#include "kernels/ops.h"
#include "runtime/norms.h"
#include "runtime/parameters.h"
#include "topology/plan.h"

namespace resnetcore {

template <class T>
constexpr Storage storage_of{sizeof(T), row_alignment<T>};

// Normal paths with their norm folded in, for inference: panels and bias by weight parameter; empty where not folded.
template <class T>
struct Folded {
    AlignedArray<T> panels;
    AlignedArray<Compute<T>> bias;
};

// What a batch is compared with, whole-batch arrays; see LossArgs.
template <class T>
struct LossTarget {
    int loss = 0;
    const std::int64_t* labels = nullptr;
    Rows<Compute<T>> targets;
    const Compute<T>* class_weight = nullptr;
    const Compute<T>* sample_weight = nullptr;
    double label_smoothing = 0, delta = 1;
    const double* normaliser = nullptr;
    std::int64_t class_weights = 0;
    double* row_loss = nullptr;
    double* loss_sums = nullptr;  // the frame's, where the device's kernels take them
};

// Where the buffers of one run are, all in memory of the device. `rows` is the capacity that the arena was laid out
// for.
template <class T>
struct Frame {
    Rows<Compute<T>> input;
    T* arena = nullptr;
    T* kept = nullptr;                // where the plan's kept elements lie instead, of a plan that has them
    Rows<Compute<T>> given;           // ∂E/∂outputs, of a plan that is given it
    MutableRows<Compute<T>> outputs;  // of forward alone: a copy of what is kept
    std::int64_t rows = 0;
    BufferId output =
        -1;  // this buffer lies in `output_rows` instead of the arena, or is copied there if it is narrower
    MutableRows<Compute<T>> output_rows;
    MutableRows<Compute<T>> logits;      // what the loss reads, where T does not compute itself
    std::int64_t first_row = 0;          // of the frame in its batch: dropout and targets count from the batch's start
    bool continues = false;              // the step of the frame before: gradients are added to its own
    bool measured = false;               // what gradients are made of, for an update that could overflow
    const PhiloxKey* dropout = nullptr;  // seed and step; the purpose is each site's
    LossTarget<T> target;
};

// That so many threads divide the columns of products of all rows, and what is between them by `beside` rows at the
// most.
struct DividedColumns {
    std::int64_t rows = 0, beside = 0;
    int threads = 1;
};

template <class T>
class StepRunner {
public:
    // Masks, and gradients of the loss that are not stored yet, have room for so many rows a call; masks also for
    // `divided`.
    StepRunner(const Plan& plan, Device& device, const ParameterStore<T>& store, Norms<T>& norms,
               const std::vector<Folded<T>>* folded, std::int64_t rows, const DividedColumns& divided = {});

    // Rows [begin, end) of the frame. Where they are `measured`, what gradients are made of counts for the magnitudes.
    void run(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end, bool measured = false,
             const PartialSums<T>* sums = nullptr);

    // A step after a norm's column sums, and these, in one call; of all rows of a batch that the device so `joins`.
    void run_with_sums(const Step& step, const Frame<T>& frame, std::int64_t rows, bool measured);

    // A step forward, or a product back, on rows [0, end), by one of `threads` that share the arena: its share
    // of the columns. `measured` as above.
    void run_columns(const Step& step, const Frame<T>& frame, std::int64_t end, int thread, int threads,
                     bool measured = false);

    // The steps of a phase from one on, as many as the device takes in one call: how many, 0 where they are to be run
    // one by one. `measured` as above.
    std::size_t run_chain(std::size_t phase, std::size_t first, const Frame<T>& frame, std::int64_t begin,
                          std::int64_t end, bool measured);

    // Takes the tile's rows of a buffer that no step has made into account for the magnitudes, likewise.
    void measure(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end);
    // The tile's rows of a buffer, into the caller's.
    void copy(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
              MutableRows<Compute<T>> to) const;
    // The largest A and the largest δ since they were forgotten, in memory of the device.
    double* magnitudes() { return magnitudes_.data(); }
    void forget_magnitudes() { device_.clear(magnitudes_.data(), magnitudes_.bytes()); }

    bool has_mask_room(const DividedColumns& divided) const {
        return mask_room(masked_, divided) <= mask_.size() && mask_room(branch_masked_, divided) <= branch_mask_.size();
    }

    Rows<T> read(BufferId id, const Frame<T>& frame, std::int64_t row) const;
    MutableRows<T> write(BufferId id, const Frame<T>& frame, std::int64_t row) const;

private:
    // Of a step's results.
    struct Columns {
        std::int64_t first, last;
    };
    static Columns all_of(const Step& step) { return {0, step.width}; }

    // Whether the step's own kernel has measured its outputs.
    bool run_kernel(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, bool measured,
                    const PartialSums<T>*);
    double* largest(BufferId);
    MutableRows<Compute<T>> wide(const Step&, const Frame<T>&, std::int64_t row) const;
    ForwardArgs<T> forward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);
    BackwardDataArgs<T> backward_data(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, Columns);
    void moments(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, const PartialSums<T>&);
    void norm_sums(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, const PartialSums<T>&);
    NormBackwardArgs<T> norm_backward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);
    void gate(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);
    void gate_backward(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);
    LossArgs<T> loss(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);

    void reserve_terms();
    void forget_terms() { sources_.clear(), identities_.clear(); }
    template <class Args>
    void gather_terms(Args& args, const Step&, const Frame<T>&, std::int64_t row, bool transposed);
    bool is_link(const Step&, const Frame<T>&) const;
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
    Norms<T>& norms_;
    const std::vector<Folded<T>>* folded_;
    std::vector<std::int64_t> strides_;
    std::vector<Source<T>> sources_;  // of the next call
    std::vector<Rows<T>> identities_;
    std::vector<ChainStep<T>> chain_;
    AlignedArray<Compute<T>> mask_, branch_mask_;
    std::int64_t masked_ = 0, branch_masked_ = 0;  // the widest that have such masks
    AlignedArray<Compute<T>> unrounded_;           // gradients of the loss, before they are stored
    std::int64_t unrounded_stride_ = 0;
    AlignedArray<double> magnitudes_;
};

extern template class StepRunner<float>;
extern template class StepRunner<double>;
extern template class StepRunner<bfloat16>;
extern template class StepRunner<bfloat16x2>;

}  // namespace resnetcore

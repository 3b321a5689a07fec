// Runs one step of a plan on one tile of rows: the kernel that it needs, with its arguments. Never allocates: each
// thread owns a StepRunner made before the run.
#pragma once

#include <vector>

#include "kernels/ops.h"
#include "runtime/frame.h"
#include "runtime/norms.h"
#include "runtime/step_arguments.h"
#include "topology/plan.h"

namespace resnetcore {

// The place of a step in a plan; behind a phase's last one where there is no such step.
struct PlanPlace {
    std::size_t phase = 0, step = 0;
};

template <class T>
class StepRunner {
public:
    // As StepArguments is made.
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

    // The steps from one on, as many as the device takes in one call, and column sums between phases before `last`
    // where it takes those: `at` is behind them then. False where the next one is to be run by itself. `measured` as
    // above.
    bool run_chain(PlanPlace& at, std::size_t last, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                   bool measured);

    // Takes the tile's rows of a buffer that no step has made into account for the magnitudes, likewise.
    void measure(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end);
    // The tile's rows of a buffer, into the caller's.
    void copy(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
              MutableRows<Compute<T>> to) const;
    // The largest A and the largest δ since they were forgotten, in memory of the device.
    double* magnitudes() { return magnitudes_.data(); }
    void forget_magnitudes() { device_.clear(magnitudes_.data(), magnitudes_.bytes()); }

    Rows<T> read(BufferId id, const Frame<T>& frame, std::int64_t row) const { return arguments_.read(id, frame, row); }
    bool has_mask_room(const DividedColumns& divided) const { return arguments_.has_mask_room(divided); }
    bool has_pass_room() const { return arguments_.has_pass_room(); }

private:
    // Whether the step's own kernel has measured its outputs.
    bool run_kernel(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end, bool measured,
                    const PartialSums<T>*);
    double* largest(BufferId);
    bool is_link(const Step&, const Frame<T>&) const;
    bool is_link_with_sums(const Step&, const Frame<T>&) const;
    ChainStep<T> link(const Step&, const Frame<T>&, std::int64_t begin, std::int64_t end);

    const Plan& plan_;
    Device& device_;
    const KernelTable<T>& kernels_;
    Norms<T>& norms_;
    StepArguments<T> arguments_;  // of the next call
    std::vector<ChainStep<T>> chain_;
    std::vector<PlanPlace> behind_;  // each of them
    AlignedArray<double> magnitudes_;
};

extern template class StepRunner<float>;
extern template class StepRunner<double>;
extern template class StepRunner<bfloat16>;
extern template class StepRunner<bfloat16x2>;

}  // namespace resnetcore

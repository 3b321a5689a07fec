// Walks a plan through the kernels. A training pass runs phase by phase over the whole batch, inside a team; inference
// is one phase without barriers. Each thread takes tiles through a phase, and what lives no longer than that may be in
// a small arena of its own (BufferInfo::of_tile). Of a few rows each takes some columns of every product instead, in
// training, too, and they meet after each. A device that is not the host has a team of one and one tile of all rows:
// its kernels cut them up themselves.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "runtime/step_runner.h"
#include "runtime/thread_pool.h"
#include "runtime/work_queue.h"

namespace resnetcore {

// Takes the share of one tile in a weight's gradient. Called for the tiles of a weight one after another, in order,
// whichever thread has the tile: so the sum does not depend on the threads.
template <class T>
class GradientSink {
public:
    virtual void add(const WeightStep& step, Rows<T> a, Rows<T> delta, std::int64_t rows, bool first, int thread) = 0;

protected:
    ~GradientSink() = default;
};

template <class T>
class BatchExecutor {
public:
    BatchExecutor(Plan plan, Device& device, ParameterStore<T>& store, Norms<T>& norms,
                  const std::vector<Folded<T>>* folded, std::int64_t weight_bytes);

    // Makes room for up to `rows` rows and this many threads; everything that can fail for lack of memory is done here.
    void prepare(std::int64_t rows, int threads);
    // Before each run, by one thread, with a barrier between: cuts `rows` rows into tiles for a team of `threads`.
    void begin(std::int64_t rows, int threads);
    // Whether that many threads divide the columns of products, and not their rows.
    bool divides_columns(std::int64_t rows, int threads) const;
    // All phases over batch.rows rows; called by every thread of a team. The arenas of `batch` are filled in.
    void run(Team& team, const Frame<T>& batch, GradientSink<T>* sink = nullptr) {
        run_phases(team, batch, sink, 0, plan_.phases.size());
    }
    // Of a plan with a given gradient, whose kept elements the caller provides: either half.
    void run_forward(Team& team, const Frame<T>& batch) { run_phases(team, batch, nullptr, 0, plan_.backward_phase); }
    void run_backward(Team& team, const Frame<T>& batch, GradientSink<T>* sink) {
        run_phases(team, batch, sink, plan_.backward_phase, plan_.phases.size());
    }

    const Plan& plan() const { return plan_; }
    // The largest A and the largest δ of all runs since `forget_magnitudes`, in memory of the device. By one thread.
    const double* magnitudes();
    void forget_magnitudes();
    // Rows of a buffer after a run of `frame`, where the plan keeps it.
    Rows<T> rows(BufferId id, Frame<T> frame) const;

private:
    struct alignas(64) Turn {
        std::atomic<std::int64_t> tile{0};  // the next to add its share
    };

    void run_phases(Team& team, const Frame<T>& batch, GradientSink<T>* sink, std::size_t first, std::size_t last);
    void run_columns(Team& team, const Frame<T>& whole, std::size_t first, std::size_t last);
    void run_at_once(Team& team, Frame<T> frame, std::size_t first, std::size_t last);
    // The tile that is next to add its share to a weight's gradient.
    std::int64_t next_of(const Step& weights) const {
        return turns_[weights.weights].tile.load(std::memory_order_acquire);
    }
    void add_share(Team& team, const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                   std::int64_t tile, GradientSink<T>& sink);
    void finish(Team& team, const Step& last, const PartialSums<T>& sums, bool continues);
    PartialSums<T> sums_of(const Phase& phase, std::int64_t rows) const;
    std::int64_t tile_for(std::int64_t rows) const;
    DividedColumns divided(std::int64_t rows, int threads) const;

    const Plan plan_;
    Device& device_;
    const KernelTable<T>& kernels_;
    ParameterStore<T>& store_;
    Norms<T>& norms_;
    const std::vector<Folded<T>>* folded_;
    std::int64_t weight_bytes_;
    int threads_ = 1;
    // `largest_tile_`: rows that all tile arenas have room for. `runner_rows_`: those of a call that all runners have
    // room for, and for masks of `runner_columns_`. Either is 0 while some are missing for want of memory.
    std::int64_t tile_ = 0, largest_tile_ = 0, runner_rows_ = 0;
    DividedColumns runner_columns_;
    bool by_columns_ = false;
    AlignedArray<T> arena_;
    AlignedArray<Compute<T>> sums_, logits_;
    std::vector<AlignedArray<T>> tile_arenas_;  // by thread
    std::unique_ptr<Turn[]> turns_;             // by weight step
    std::vector<std::unique_ptr<StepRunner<T>>> runners_;
    std::unique_ptr<WorkQueue[]> queues_;
};

template <class T>
class InferenceExecutor {
public:
    InferenceExecutor(Plan plan, Device& device, ParameterStore<T>& store, Norms<T>& norms,
                      const std::vector<Folded<T>>& folded, std::int64_t weight_bytes);
    void prepare(std::int64_t rows, int threads);
    void run(Team& team, Rows<Compute<T>> input, std::int64_t rows, MutableRows<Compute<T>> out);
    // That the activations of a row take while they are needed.
    std::int64_t row_bytes() const { return plan_.tile_elements * static_cast<std::int64_t>(sizeof(T)); }

private:
    void run_by_columns(Team& team, Frame<T> frame);

    const Plan plan_;
    Device& device_;
    ParameterStore<T>& store_;
    Norms<T>& norms_;
    const std::vector<Folded<T>>& folded_;
    std::int64_t weight_bytes_;
    std::int64_t tile_ = 0, largest_tile_ = 0;  // rows that arenas and runners have room for, likewise
    bool by_columns_ = false;
    std::vector<AlignedArray<T>> arenas_;
    std::vector<std::unique_ptr<StepRunner<T>>> runners_;
    WorkQueue queue_;
};

extern template class BatchExecutor<float>;
extern template class BatchExecutor<double>;
extern template class BatchExecutor<bfloat16>;
extern template class BatchExecutor<bfloat16x2>;
extern template class InferenceExecutor<float>;
extern template class InferenceExecutor<double>;
extern template class InferenceExecutor<bfloat16>;
extern template class InferenceExecutor<bfloat16x2>;

}  // namespace resnetcore

#include "runtime/executor.h"

#include <algorithm>
#include <utility>

#include "math/step.h"
#include "runtime/tiles.h"

namespace resnetcore {
template <class T>
BatchExecutor<T>::BatchExecutor(Plan plan, Device& device, ParameterStore<T>& store, Norms<T>& norms,
                                const std::vector<Folded<T>>* folded, std::int64_t weight_bytes)
    : plan_(std::move(plan)),
      device_(device),
      kernels_(device.kernels<T>()),
      store_(store),
      norms_(norms),
      folded_(folded),
      weight_bytes_(weight_bytes),
      arena_(device),
      sums_(device),
      logits_(device),
      turns_(new Turn[plan_.weights.size()]),
      queues_(new WorkQueue[plan_.phases.size()]) {}

template <class T>
std::int64_t BatchExecutor<T>::tile_for(std::int64_t rows) const {
    return device_.is_host() ? tile_of(plan_, rows, threads_, weight_bytes_, sizeof(T), row_units(kernels_)).rows
                             : rows;
}

template <class T>
void BatchExecutor<T>::prepare(std::int64_t rows, int threads) {
    threads_ = threads;
    std::int64_t sums = 0;
    for (const Phase& phase : plan_.phases)
        if (ends_in_sums(phase)) sums = std::max(sums, 2 * most_statistics_chunks(rows) * phase.steps.back().width);
    sums_.reserve(sums);
    const std::int64_t tile = tile_for(rows), height = std::max(tile, largest_tile_);
    const std::int64_t most = std::max(height, runner_rows_);
    if (tile > largest_tile_) tile_arenas_.clear(), largest_tile_ = 0;
    if (divides_columns(rows, threads)) {
        const DividedColumns now = divided(rows, threads);
        if (runner_columns_.rows == 0) runner_columns_ = now;
        runner_columns_ = {std::max(runner_columns_.rows, now.rows), std::max(runner_columns_.beside, now.beside),
                           std::min(runner_columns_.threads, now.threads)};
    }
    const bool has_room =
        runners_.empty() || (runners_[0]->has_mask_room(runner_columns_) && runners_[0]->has_pass_room());
    if (most > runner_rows_ || !has_room) runners_.clear(), runner_rows_ = 0;
    arena_.reserve((plan_.row_elements - plan_.kept_elements) * rows);
    if (!computes_itself<T>) logits_.reserve(plan_.buffers[plan_.output].width * rows);
    while (plan_.tile_elements > 0 && static_cast<int>(tile_arenas_.size()) < threads)
        tile_arenas_.emplace_back(device_, plan_.tile_elements * height);
    while (static_cast<int>(runners_.size()) < threads)
        runners_.push_back(
            std::make_unique<StepRunner<T>>(plan_, device_, store_, norms_, folded_, most, runner_columns_));
    largest_tile_ = height, runner_rows_ = most;
    for (std::size_t p = 0; p < plan_.phases.size(); ++p) queues_[p].reserve(threads);
}

template <class T>
bool BatchExecutor<T>::divides_columns(std::int64_t rows, int threads) const {
    return device_.is_host() &&
           divides_training_columns(plan_, rows, threads, weight_bytes_, sizeof(T), kernels_.product_speed);
}

// Units of rows are powers of two.
template <class T>
DividedColumns BatchExecutor<T>::divided(std::int64_t rows, int threads) const {
    const std::int64_t unit = std::max<std::int64_t>(statistics_chunk(rows), kernels_.row_block);
    const std::int64_t units = (rows + unit - 1) / unit;
    return {rows, std::min(rows, (units + threads - 1) / threads * unit), threads};
}

template <class T>
void BatchExecutor<T>::begin(std::int64_t rows, int threads) {
    // Room was made for the largest micro-batch. If that one divides rows, a smaller one may want to divide columns,
    // and lack room for its masks: then it divides rows, too.
    by_columns_ = divides_columns(rows, threads) && runners_[0]->has_mask_room(divided(rows, threads));
    tile_ = std::min(tile_for(rows), largest_tile_);
    for (std::size_t p = 0; p < plan_.phases.size(); ++p) queues_[p].reset((rows + tile_ - 1) / tile_, threads);
    for (std::size_t w = 0; w < plan_.weights.size(); ++w) turns_[w].tile.store(0, std::memory_order_relaxed);
}

template <class T>
PartialSums<T> BatchExecutor<T>::sums_of(const Phase& phase, std::int64_t rows) const {
    if (!ends_in_sums(phase)) return {nullptr, 0, rows, rows};
    return {const_cast<Compute<T>*>(sums_.data()), phase.steps.back().width, rows, statistics_chunk(rows)};
}

template <class T>
void BatchExecutor<T>::run_phases(Team& team, const Frame<T>& batch, GradientSink<T>* sink, std::size_t first,
                                  std::size_t last) {
    Frame<T> whole = batch;
    whole.arena = arena_.data();
    if (!computes_itself<T>) whole.logits = {logits_.data(), plan_.buffers[plan_.output].width};
    if (!device_.is_host()) return run_at_once(team, whole, first, last);
    if (by_columns_) return run_columns(team, whole, first, last);
    StepRunner<T>& runner = *runners_[team.rank()];
    Frame<T> frame = whole;
    if (plan_.tile_elements > 0) frame.tile = tile_arenas_[team.rank()].data();
    const bool measured = batch.measured;
    for (std::size_t p = first; p < last; ++p) {
        const Phase& phase = plan_.phases[p];
        const PartialSums<T> sums = sums_of(phase, batch.rows);
        std::int64_t tile;
        while (queues_[p].take(team.rank(), tile)) {
            const std::int64_t begin = tile * tile_, end = std::min(begin + tile_, batch.rows);
            frame.tile_begin = begin, frame.tile_rows = end - begin;
            if (measured && p == 0 && computes_itself<T>) runner.measure(0, frame, begin, end);
            for (const Step& step : phase.steps) {
                if (step.kind == StepKind::weights) {
                    if (plan_.tile_local || next_of(step) == tile)
                        add_share(team, step, frame, begin, end, tile, *sink);
                    continue;
                }
                runner.run(step, frame, begin, end, measured, &sums);
                if (!computes_itself<T> && frame.output >= 0 && step.out == frame.output)
                    runner.copy(frame.output, frame, begin, end, frame.output_rows);
            }
            if (frame.outputs.data && p + 1 == last) runner.copy(plan_.output, frame, begin, end, frame.outputs);
            if (plan_.tile_local) continue;
            // What was not the tile's turn: by now others have added theirs, and so threads do not wait for each other
            // at the beginning of every phase.
            for (const Step& step : phase.steps)
                if (step.kind == StepKind::weights && next_of(step) <= tile)
                    add_share(team, step, frame, begin, end, tile, *sink);
        }
        team.barrier();
        if (ends_in_sums(phase)) {
            finish(team, phase.steps.back(), sums, batch.continues);
            team.barrier();
        }
    }
}

// On a device, all rows, and weights' gradients when all is done: as many steps as it takes in one call, then the next
// ones; and column sums with the step after them where it joins these.
template <class T>
void BatchExecutor<T>::run_at_once(Team& team, Frame<T> frame, std::size_t first, std::size_t last) {
    StepRunner<T>& runner = *runners_[0];
    if (plan_.tile_elements > 0) frame.tile = tile_arenas_[0].data();
    frame.tile_rows = frame.rows;
    if (frame.measured && first == 0 && computes_itself<T>) runner.measure(0, frame, 0, frame.rows);
    const bool joins = frame.rows <= kernels_.joined_rows;
    for (PlanPlace at{first, 0}; at.phase < last;) {
        const Phase& phase = plan_.phases[at.phase];
        if (at.step == phase.steps.size()) {
            at = {at.phase + 1, 0};
            continue;
        }
        if (runner.run_chain(at, last, frame, 0, frame.rows, frame.measured)) continue;
        const bool sums = ends_in_sums(phase) && at.step + 1 == phase.steps.size();
        const Step& step = joins && sums ? plan_.phases[at.phase + 1].steps.front() : phase.steps[at.step];
        at = joins && sums ? PlanPlace{at.phase + 1, 1} : PlanPlace{at.phase, at.step + 1};
        if (joins && sums) {
            runner.run_with_sums(step, frame, frame.rows, frame.measured);
        } else {
            const PartialSums<T> partial = sums_of(phase, frame.rows);
            runner.run(step, frame, 0, frame.rows, frame.measured, &partial);
            if (sums) finish(team, step, partial, frame.continues);
        }
        if (!computes_itself<T> && frame.output >= 0 && step.out == frame.output)
            runner.copy(frame.output, frame, 0, frame.rows, frame.output_rows);
    }
    if (frame.outputs.data) runner.copy(plan_.output, frame, 0, frame.rows, frame.outputs);
}

// Each thread its columns of every product, and its rows of what is between them; they meet after each.
template <class T>
void BatchExecutor<T>::run_columns(Team& team, const Frame<T>& whole, std::size_t first, std::size_t last) {
    StepRunner<T>& runner = *runners_[team.rank()];
    for (std::size_t p = first; p < last; ++p) {
        const Phase& phase = plan_.phases[p];
        const PartialSums<T> sums = sums_of(phase, whole.rows);
        const std::int64_t unit = ends_in_sums(phase) ? sums.chunk : kernels_.row_block;
        const Share share = share_of((whole.rows + unit - 1) / unit, team.rank(), team.size());
        const std::int64_t begin = share.first * unit, end = std::min(share.last * unit, whole.rows);
        if (whole.measured && p == 0 && computes_itself<T> && begin < end) runner.measure(0, whole, begin, end);
        for (const Step& step : phase.steps) {
            if (!step.products.empty())
                runner.run_columns(step, whole, whole.rows, team.rank(), team.size(), whole.measured);
            else if (begin < end)
                runner.run(step, whole, begin, end, whole.measured, &sums);
            team.barrier();
            if (!computes_itself<T> && whole.output >= 0 && step.out == whole.output)
                runner.copy(whole.output, whole, begin, end, whole.output_rows);
        }
        if (whole.outputs.data && p + 1 == last) runner.copy(plan_.output, whole, begin, end, whole.outputs);
        if (!ends_in_sums(phase)) continue;
        finish(team, phase.steps.back(), sums, whole.continues);
        team.barrier();
    }
}

// Nobody waits for ever: see WorkQueue.
template <class T>
void BatchExecutor<T>::add_share(Team& team, const Step& step, const Frame<T>& frame, std::int64_t begin,
                                 std::int64_t end, std::int64_t tile, GradientSink<T>& sink) {
    const WeightStep& weights = plan_.weights[step.weights];
    const StepRunner<T>& runner = *runners_[team.rank()];
    std::atomic<std::int64_t>& turn = turns_[step.weights].tile;
    team.wait_for(turn, tile);
    sink.add(weights, runner.read(weights.a, frame, begin), runner.read(weights.delta, frame, begin), end - begin,
             tile == 0 && !frame.continues, team.rank());
    turn.store(tile + 1, std::memory_order_release);
}

// Columns are independent, so each thread combines its share of them.
template <class T>
void BatchExecutor<T>::finish(Team& team, const Step& last, const PartialSums<T>& sums, bool continues) {
    const auto [begin, end] = share_of(last.width, team.rank(), team.size());
    Norm<T>& norm = norms_.of_layer(last.branch.norm);
    if (last.kind == StepKind::norm_sums)
        kernels_.combine_norm_sums(norms_.from_norm_sums(norm, sums, begin, end, continues));
    else if (!norms_.frozen())
        kernels_.combine_moments(norms_.from_moments(norm, sums, begin, end, continues));
}

template <class T>
const double* BatchExecutor<T>::magnitudes() {
    double* all = runners_[0]->magnitudes();
    // Where there are several threads, they are the host's, and so is this memory.
    for (std::size_t rank = 1; rank < runners_.size(); ++rank)
        for (int i = 0; i < 2; ++i) all[i] = larger(all[i], runners_[rank]->magnitudes()[i]);
    return all;
}

template <class T>
void BatchExecutor<T>::forget_magnitudes() {
    for (auto& runner : runners_) runner->forget_magnitudes();
}

template <class T>
Rows<T> BatchExecutor<T>::rows(BufferId id, Frame<T> frame) const {
    frame.arena = const_cast<T*>(arena_.data());
    return runners_[0]->read(id, frame, 0);
}

template <class T>
InferenceExecutor<T>::InferenceExecutor(Plan plan, Device& device, ParameterStore<T>& store, Norms<T>& norms,
                                        const std::vector<Folded<T>>& folded, std::int64_t weight_bytes)
    : plan_(std::move(plan)),
      device_(device),
      store_(store),
      norms_(norms),
      folded_(folded),
      weight_bytes_(weight_bytes) {}

template <class T>
void InferenceExecutor<T>::prepare(std::int64_t rows, int threads) {
    const RowUnits units = row_units(device_.kernels<T>());
    by_columns_ = device_.is_host() && divides_columns(plan_, rows, threads, weight_bytes_, units);
    tile_ =
        device_.is_host() && !by_columns_ ? tile_of(plan_, rows, threads, weight_bytes_, sizeof(T), units).rows : rows;
    const std::int64_t height = std::max(tile_, largest_tile_);
    if (tile_ > largest_tile_) runners_.clear(), arenas_.clear(), largest_tile_ = 0;
    while (static_cast<int>(arenas_.size()) < threads) arenas_.emplace_back(device_, plan_.tile_elements * height);
    while (static_cast<int>(runners_.size()) < threads)
        runners_.push_back(std::make_unique<StepRunner<T>>(plan_, device_, store_, norms_, &folded_, height));
    largest_tile_ = height;
    queue_.reserve(threads);
    queue_.reset((rows + tile_ - 1) / tile_, threads);
}

template <class T>
void InferenceExecutor<T>::run(Team& team, Rows<Compute<T>> input, std::int64_t rows, MutableRows<Compute<T>> out) {
    Frame<T> frame;
    frame.output = plan_.output;
    frame.input = input;
    frame.output_rows = out;
    if (by_columns_) return run_by_columns(team, frame);
    StepRunner<T>& runner = *runners_[team.rank()];
    frame.tile = arenas_[team.rank()].data();
    std::int64_t tile;
    while (queue_.take(team.rank(), tile)) {
        const std::int64_t begin = tile * tile_, end = std::min(begin + tile_, rows);
        frame.tile_begin = begin, frame.tile_rows = end - begin;
        for (std::size_t p = 0; p < plan_.phases.size(); ++p)
            for (PlanPlace at{p, 0}; at.step < plan_.phases[p].steps.size();)
                if (!runner.run_chain(at, p + 1, frame, begin, end, false))
                    runner.run(plan_.phases[p].steps[at.step++], frame, begin, end);
    }
}

// All rows are one tile, in an arena that the threads share.
template <class T>
void InferenceExecutor<T>::run_by_columns(Team& team, Frame<T> frame) {
    StepRunner<T>& runner = *runners_[team.rank()];
    frame.tile = arenas_[0].data();
    frame.tile_rows = tile_;
    for (const Phase& phase : plan_.phases)
        for (const Step& step : phase.steps) {
            if (step.kind == StepKind::forward)
                runner.run_columns(step, frame, tile_, team.rank(), team.size());
            else if (team.rank() == 0)
                runner.run(step, frame, 0, tile_);
            team.barrier();
        }
}

template class BatchExecutor<float>;
template class BatchExecutor<double>;
template class BatchExecutor<bfloat16>;
template class BatchExecutor<bfloat16x2>;
template class InferenceExecutor<float>;
template class InferenceExecutor<double>;
template class InferenceExecutor<bfloat16>;
template class InferenceExecutor<bfloat16x2>;

}  // namespace resnetcore

#include "runtime/step_runner.h"

#include <algorithm>

#include "runtime/tiles.h"

namespace resnetcore {

template <class T>
StepRunner<T>::StepRunner(const Plan& plan, Device& device, const ParameterStore<T>& store, Norms<T>& norms,
                          const std::vector<Folded<T>>* folded, std::int64_t rows, const DividedColumns& divided)
    : plan_(plan),
      device_(device),
      kernels_(device.kernels<T>()),
      norms_(norms),
      arguments_(plan, device, store, norms, folded, rows, divided),
      magnitudes_(device, 2) {
    if (!kernels_.chain) return;
    std::size_t links = 0;
    for (const Phase& phase : plan.phases) links += phase.steps.size();
    chain_.reserve(links), behind_.reserve(links);
}

template <class T>
void StepRunner<T>::run(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end, bool measured,
                        const PartialSums<T>* sums) {
    if (run_kernel(step, frame, begin, end, measured, sums) || !measured) return;
    for (BufferId id : {step.out, step.d_h, step.d_t, step.d_x}) measure(id, frame, begin, end);
}

template <class T>
bool StepRunner<T>::run_kernel(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                               bool measured, const PartialSums<T>* sums) {
    const auto run_measured = [&](auto kernel, auto args) {
        if (measured) args.largest = largest(step.out);
        kernel(args);
        return kernels_.keeps_largest;
    };
    const auto narrow = [&](const Rows<Compute<T>>& rows) {
        kernels_.narrow(end - begin, step.width, rows_from(rows, begin), arguments_.write(step.out, frame, begin),
                        measured ? largest(step.out) : nullptr);
        return kernels_.keeps_largest;
    };
    switch (step.kind) {
        case StepKind::input:
            return narrow(frame.input);
        case StepKind::given:
            return narrow(frame.given);
        case StepKind::forward:
            arguments_.forget_terms();
            return run_measured(kernels_.forward, arguments_.forward(step, frame, begin, end));
        case StepKind::backward_data:
            arguments_.forget_terms();
            return run_measured(kernels_.backward_data, arguments_.backward_data(step, frame, begin, end));
        case StepKind::moments:
            if (!norms_.frozen()) kernels_.moments(arguments_.moments(step, frame, begin, end, *sums));
            break;
        case StepKind::norm_sums:
            kernels_.norm_sums(arguments_.norm_sums(step, frame, begin, end, *sums));
            break;
        case StepKind::norm_backward:
            return run_measured(kernels_.norm_backward, arguments_.norm_backward(step, frame, begin, end));
        case StepKind::gate:
            kernels_.gate(arguments_.gate(step, frame, begin, end));
            break;
        case StepKind::gate_backward:
            kernels_.gate_backward(arguments_.gate_backward(step, frame, begin, end));
            break;
        case StepKind::loss:
            return run_measured(kernels_.loss, arguments_.loss(step, frame, begin, end));
        case StepKind::weights:
            break;  // the executor's, which knows whose turn it is
    }
    return false;
}

template <class T>
void StepRunner<T>::run_with_sums(const Step& step, const Frame<T>& frame, std::int64_t rows, bool measured) {
    const bool forward_step = step.kind == StepKind::forward;
    if (forward_step && norms_.frozen()) return run(step, frame, 0, rows, measured);
    Norm<T>& norm = norms_.of_layer(step.branch.norm);
    const PartialSums<T> all{nullptr, step.width, rows, rows};
    double* const into = measured ? largest(step.out) : nullptr;
    if (forward_step) {
        arguments_.forget_terms();
        ForwardArgs<T> args = arguments_.forward(step, frame, 0, rows);
        args.largest = into;
        kernels_.apply_norm(norms_.from_moments(norm, all, 0, step.width, frame.continues), args);
    } else {
        NormBackwardArgs<T> args = arguments_.norm_backward(step, frame, 0, rows);
        args.largest = into;
        kernels_.undo_norm(norms_.from_norm_sums(norm, all, 0, step.width, frame.continues), args);
    }
    if (into && !kernels_.keeps_largest) measure(step.out, frame, 0, rows);
}

template <class T>
void StepRunner<T>::run_columns(const Step& step, const Frame<T>& frame, std::int64_t end, int thread, int threads,
                                bool measured) {
    const Share share = share_of(panel_count(step.width, kernels_.panel), thread, threads);
    if (share.first == share.last) return;
    const typename StepArguments<T>::Columns columns{share.first * kernels_.panel,
                                                     std::min(share.last * kernels_.panel, step.width)};
    double* const into = measured ? largest(step.out) : nullptr;
    const auto run_share = [&](auto kernel, auto args) {
        args.first_panel = share.first, args.last_panel = share.last;
        args.largest = into;
        kernel(args);
    };
    arguments_.forget_terms();
    if (step.kind == StepKind::forward)
        run_share(kernels_.forward, arguments_.forward(step, frame, 0, end, columns));
    else
        run_share(kernels_.backward_data, arguments_.backward_data(step, frame, 0, end, columns));
    if (!into || kernels_.keeps_largest) return;
    const Rows<T> rows = arguments_.read(step.out, frame, 0);
    kernels_.largest({end, columns.last - columns.first, {rows.data + columns.first, rows.stride}, into});
}

template <class T>
void StepRunner<T>::copy(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                         MutableRows<Compute<T>> to) const {
    kernels_.widen(end - begin, plan_.buffers[id].width, arguments_.read(id, frame, begin), rows_from(to, begin));
}

// Where that of a buffer is kept; null: no gradient is made of it.
template <class T>
double* StepRunner<T>::largest(BufferId id) {
    if (id < 0) return nullptr;
    const BufferInfo& buffer = plan_.buffers[id];
    return buffer.is_a ? magnitudes() : buffer.is_delta ? magnitudes() + 1 : nullptr;
}

template <class T>
void StepRunner<T>::measure(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    if (double* into = largest(id))
        kernels_.largest({end - begin, plan_.buffers[id].width, arguments_.read(id, frame, begin), into});
}

// Whether a step may be one of a chain's: it reads nothing of its rows but sources, skips and what it saved, and nobody
// looks at its output before the next step.
template <class T>
bool StepRunner<T>::is_link(const Step& step, const Frame<T>& frame) const {
    if (step.dropout > 0) return false;
    if (step.kind == StepKind::forward) return step.branch.z < 0;
    return step.kind == StepKind::backward_data && step.out != frame.output;
}

// Likewise of a step that comes with the column sums before it.
template <class T>
bool StepRunner<T>::is_link_with_sums(const Step& step, const Frame<T>& frame) const {
    if (step.dropout > 0 || step.branch.dropout > 0 || step.out == frame.output) return false;
    return step.kind == StepKind::norm_backward || (step.kind == StepKind::forward && !norms_.frozen());
}

template <class T>
ChainStep<T> StepRunner<T>::link(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    ChainStep<T> link;
    const bool normed = step.branch.norm >= 0 && step.kind != StepKind::backward_data;
    switch (step.kind) {
        case StepKind::backward_data:
            link.kind = ChainKind::backward_data;
            link.data = arguments_.backward_data(step, frame, begin, end);
            break;
        case StepKind::norm_backward:
            link.kind = ChainKind::undo_norm;
            link.undo = arguments_.norm_backward(step, frame, begin, end);
            break;
        default:
            link.kind = normed ? ChainKind::apply_norm : ChainKind::forward;
            link.forward = arguments_.forward(step, frame, begin, end);
    }
    if (normed) {
        Norm<T>& norm = norms_.of_layer(step.branch.norm);
        const PartialSums<T> all{nullptr, step.width, end, end};
        if (step.kind == StepKind::norm_backward)
            link.sums = norms_.from_norm_sums(norm, all, 0, step.width, frame.continues);
        else
            link.moments = norms_.from_moments(norm, all, 0, step.width, frame.continues);
    }
    const BufferInfo& out = plan_.buffers[step.out];
    link.is_a = out.is_a, link.is_delta = out.is_delta;
    return link;
}

template <class T>
bool StepRunner<T>::run_chain(PlanPlace& at, std::size_t last, const Frame<T>& frame, std::int64_t begin,
                              std::int64_t end, bool measured) {
    const std::size_t most = kernels_.longest_chain ? static_cast<std::size_t>(kernels_.longest_chain()) : 0;
    if (most < 2) return false;
    const bool norms = end <= kernels_.joined_rows && kernels_.chains_norms();
    // Where lifetimes count steps, those of the phases before are counted, too.
    std::int64_t number = static_cast<std::int64_t>(at.step);
    for (std::size_t p = 0; p < at.phase; ++p) number += static_cast<std::int64_t>(plan_.phases[p].steps.size());
    arguments_.forget_terms();
    chain_.clear(), behind_.clear();
    for (PlanPlace next = at; chain_.size() < most && next.step < plan_.phases[next.phase].steps.size();) {
        const Phase& phase = plan_.phases[next.phase];
        const Step* step = &phase.steps[next.step++];
        if (ends_in_sums(phase) && next.step == phase.steps.size()) {
            if (!norms || next.phase + 1 == last) break;
            next = {next.phase + 1, 1};
            step = &plan_.phases[next.phase].steps.front();
            if (!is_link_with_sums(*step, frame)) break;
        } else if (!is_link(*step, frame)) {
            break;
        }
        chain_.push_back(link(*step, frame, begin, end)), behind_.push_back(next);
        if (plan_.tile_local) chain_.back().last_reader = plan_.buffers[step->out].last_use - number;
    }
    if (chain_.size() < 2) return false;
    ChainArgs<T> args;
    args.steps = chain_.data(), args.n_steps = static_cast<std::int64_t>(chain_.size());
    if (measured) args.largest_a = magnitudes(), args.largest_delta = magnitudes() + 1;
    const std::int64_t done = kernels_.chain(args);
    if (done > 0) at = behind_[static_cast<std::size_t>(done - 1)];
    return done > 0;
}

template class StepRunner<float>;
template class StepRunner<double>;
template class StepRunner<bfloat16>;
template class StepRunner<bfloat16x2>;

}  // namespace resnetcore

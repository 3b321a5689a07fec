#include "runtime/step_runner.h"

#include <algorithm>

#include "runtime/tiles.h"
#include "topology/memory.h"

namespace resnetcore {
namespace {

template <class Rows>
Rows from(const Rows& rows, std::int64_t row) {
    return {rows.data + row * rows.stride, rows.stride};
}

constexpr std::uint32_t dropout_purpose = 1;  // low byte of a Philox purpose; the site is above it

}  // namespace

template <class T>
StepRunner<T>::StepRunner(const Plan& plan, Device& device, const ParameterStore<T>& store, Norms<T>& norms,
                          const std::vector<Folded<T>>* folded, std::int64_t rows, const DividedColumns& divided)
    : plan_(plan),
      device_(device),
      kernels_(device.kernels<T>()),
      store_(store),
      norms_(norms),
      folded_(folded),
      mask_(device),
      branch_mask_(device),
      unrounded_(device),
      magnitudes_(device, 2) {
    reserve_terms();
    for (const BufferInfo& b : plan.buffers) strides_.push_back(padded_width(b.width, storage_of<T>));
    for (const Phase& phase : plan.phases)
        for (const Step& step : phase.steps) {
            if (step.dropout > 0) masked_ = std::max(masked_, step.width);
            if (step.branch.dropout > 0) branch_masked_ = std::max(branch_masked_, step.width);
            if (step.kind != StepKind::loss || computes_itself<T> || device.is_host()) continue;
            unrounded_stride_ = step.width;
            unrounded_.reserve(step.width * rows);
        }
    mask_.reserve(std::max(masked_ * rows, mask_room(masked_, divided)));
    branch_mask_.reserve(std::max(branch_masked_ * rows, mask_room(branch_masked_, divided)));
}

template <class T>
MutableRows<T> StepRunner<T>::write(BufferId id, const Frame<T>& frame, std::int64_t row) const {
    if (id < 0) return {};
    if constexpr (computes_itself<T>)
        if (id == frame.output) return from(frame.output_rows, row);
    const std::int64_t offset = plan_.buffers[id].offset, kept = plan_.kept_elements;
    T* base = offset < kept ? frame.kept + offset * frame.rows : frame.arena + (offset - kept) * frame.rows;
    return {base + row * strides_[id], strides_[id]};
}

template <class T>
Rows<T> StepRunner<T>::read(BufferId id, const Frame<T>& frame, std::int64_t row) const {
    if constexpr (computes_itself<T>)
        if (id == 0) return from(frame.input, row);
    return write(id, frame, row);
}

// Where a step that ends in the outputs leaves them unrounded.
template <class T>
MutableRows<Compute<T>> StepRunner<T>::wide(const Step& step, const Frame<T>& frame, std::int64_t row) const {
    if (computes_itself<T> || step.out != plan_.output) return {};
    return from(frame.logits.data ? frame.logits : frame.output_rows, row);
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
        kernels_.narrow(end - begin, step.width, from(rows, begin), write(step.out, frame, begin),
                        measured ? largest(step.out) : nullptr);
        return kernels_.keeps_largest;
    };
    switch (step.kind) {
        case StepKind::input:
            return narrow(frame.input);
        case StepKind::given:
            return narrow(frame.given);
        case StepKind::forward:
            forget_terms();
            return run_measured(kernels_.forward, forward(step, frame, begin, end, all_of(step)));
        case StepKind::backward_data:
            forget_terms();
            return run_measured(kernels_.backward_data, backward_data(step, frame, begin, end, all_of(step)));
        case StepKind::moments:
            if (!norms_.frozen()) moments(step, frame, begin, end, *sums);
            break;
        case StepKind::norm_sums:
            norm_sums(step, frame, begin, end, *sums);
            break;
        case StepKind::norm_backward:
            return run_measured(kernels_.norm_backward, norm_backward(step, frame, begin, end));
        case StepKind::gate:
            gate(step, frame, begin, end);
            break;
        case StepKind::gate_backward:
            gate_backward(step, frame, begin, end);
            break;
        case StepKind::loss:
            return run_measured(kernels_.loss, loss(step, frame, begin, end));
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
        forget_terms();
        ForwardArgs<T> args = forward(step, frame, 0, rows, all_of(step));
        args.largest = into;
        kernels_.apply_norm(norms_.from_moments(norm, all, 0, step.width, frame.continues), args);
    } else {
        NormBackwardArgs<T> args = norm_backward(step, frame, 0, rows);
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
    const Columns columns{share.first * kernels_.panel, std::min(share.last * kernels_.panel, step.width)};
    double* const into = measured ? largest(step.out) : nullptr;
    const auto run_share = [&](auto kernel, auto args) {
        args.first_panel = share.first, args.last_panel = share.last;
        args.largest = into;
        kernel(args);
    };
    forget_terms();
    if (step.kind == StepKind::forward)
        run_share(kernels_.forward, forward(step, frame, 0, end, columns));
    else
        run_share(kernels_.backward_data, backward_data(step, frame, 0, end, columns));
    if (!into || kernels_.keeps_largest) return;
    const Rows<T> rows = read(step.out, frame, 0);
    kernels_.largest({end, columns.last - columns.first, {rows.data + columns.first, rows.stride}, into});
}

template <class T>
void StepRunner<T>::copy(BufferId id, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                         MutableRows<Compute<T>> to) const {
    kernels_.widen(end - begin, plan_.buffers[id].width, read(id, frame, begin), from(to, begin));
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
        kernels_.largest({end - begin, plan_.buffers[id].width, read(id, frame, begin), into});
}

// For one step; or, where the device takes chains, for all steps of a phase.
template <class T>
void StepRunner<T>::reserve_terms() {
    std::size_t sources = 0, identities = 0, links = 0;
    for (const Phase& phase : plan_.phases) {
        std::size_t all_sources = 0, all_identities = 0;
        for (const Step& step : phase.steps)
            all_sources += step.products.size(), all_identities += step.identities.size();
        sources = std::max(sources, all_sources), identities = std::max(identities, all_identities);
        links = std::max(links, phase.steps.size());
    }
    const std::size_t one = static_cast<std::size_t>(plan_.max_terms);
    sources_.reserve(kernels_.chain ? sources : one);
    identities_.reserve(kernels_.chain ? identities : one);
    if (kernels_.chain) chain_.reserve(links);
}

// Whether a step may be one of a chain's: it reads nothing of its rows but sources, skips and what it saved, and nobody
// looks at its output before the next step.
template <class T>
bool StepRunner<T>::is_link(const Step& step, const Frame<T>& frame) const {
    if (step.dropout > 0) return false;
    if (step.kind == StepKind::forward) return step.branch.z < 0;
    return step.kind == StepKind::backward_data && step.out != frame.output;
}

template <class T>
std::size_t StepRunner<T>::run_chain(std::size_t phase, std::size_t first, const Frame<T>& frame, std::int64_t begin,
                                     std::int64_t end, bool measured) {
    const std::int64_t most = kernels_.longest_chain ? kernels_.longest_chain() : 0;
    if (most < 2) return 0;
    const std::vector<Step>& steps = plan_.phases[phase].steps;
    // Where lifetimes count steps, those of the phases before are counted, too.
    std::int64_t number = static_cast<std::int64_t>(first);
    for (std::size_t p = 0; p < phase; ++p) number += static_cast<std::int64_t>(plan_.phases[p].steps.size());
    forget_terms();
    chain_.clear();
    const std::size_t last = std::min(steps.size(), first + static_cast<std::size_t>(most));
    for (std::size_t s = first; s < last && is_link(steps[s], frame); ++s) {
        const BufferInfo& out = plan_.buffers[steps[s].out];
        ChainStep<T> link;
        link.goes_back = steps[s].kind == StepKind::backward_data;
        if (link.goes_back)
            link.data = backward_data(steps[s], frame, begin, end, all_of(steps[s]));
        else
            link.forward = forward(steps[s], frame, begin, end, all_of(steps[s]));
        link.is_a = out.is_a, link.is_delta = out.is_delta;
        if (plan_.tile_local) link.last_reader = out.last_use - number;
        chain_.push_back(link);
    }
    if (chain_.size() < 2) return 0;
    ChainArgs<T> args;
    args.steps = chain_.data(), args.n_steps = static_cast<std::int64_t>(chain_.size());
    if (measured) args.largest_a = magnitudes(), args.largest_delta = magnitudes() + 1;
    return static_cast<std::size_t>(kernels_.chain(args));
}

template <class T>
template <class Args>
void StepRunner<T>::gather_terms(Args& args, const Step& step, const Frame<T>& frame, std::int64_t row,
                                 bool transposed) {
    args.sources = sources_.data() + sources_.size();
    args.n_sources = static_cast<int>(step.products.size());
    for (const Product& p : step.products) {
        const bool folded = folded_ && !transposed && (*folded_)[p.weight].panels.size() > 0;
        const T* panels = transposed ? store_.transposed(p.weight)
                          : folded   ? (*folded_)[p.weight].panels.data()
                                     : store_.panels(p.weight);
        const T* across = folded || store_.by_halves() ? nullptr
                          : transposed                 ? store_.panels(p.weight)
                                                       : store_.transposed(p.weight);
        sources_.push_back({read(p.rows, frame, row), panels, plan_.buffers[p.rows].width, across});
    }
    args.identity = identities_.data() + identities_.size();
    args.n_identity = static_cast<int>(step.identities.size());
    for (BufferId id : step.identities) identities_.push_back(read(id, frame, row));
}

template <class T>
std::int64_t StepRunner<T>::mask_room(std::int64_t width, const DividedColumns& divided) const {
    if (width == 0 || divided.rows == 0) return 0;
    const std::int64_t panels = panel_count(width, kernels_.panel), share = panel_count(panels, divided.threads);
    return std::max(divided.rows * std::min(share * kernels_.panel, width) + width, divided.beside * width);
}

template <class T>
Rows<Compute<T>> StepRunner<T>::mask(AlignedArray<Compute<T>>& memory, double probability, std::uint32_t site,
                                     const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                                     Columns columns) {
    if (probability == 0) return {};
    DropoutArgs<T> args;
    args.rows = end - begin;
    args.columns = columns.last - columns.first;
    args.first_row = frame.first_row + begin, args.first_column = columns.first;
    args.row_columns = step.width;
    args.key = frame.dropout;
    args.purpose = dropout_purpose | site << 8;
    args.probability = probability;
    // Rows of these columns follow one another, from where the first row's are in a row of all.
    args.out = {memory.data() + columns.first, args.columns};
    kernels_.dropout(args);
    return {memory.data(), args.columns};
}

template <class T>
Branch<T> StepRunner<T>::branch(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                                Columns columns) {
    Branch<T> branch;
    if (step.branch.z >= 0) branch.z = read(step.branch.z, frame, begin);
    if (step.branch.norm >= 0) {
        const Norm<T>& norm = norms_.of_layer(step.branch.norm);
        branch.center = norm.mean.data();
        branch.scale = norm.scale.data();
        branch.shift = norm.shift.data();
    }
    branch.mask = mask(branch_mask_, step.branch.dropout, step.branch.dropout_site, step, frame, begin, end, columns);
    return branch;
}

template <class T>
ForwardArgs<T> StepRunner<T>::forward(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                                      Columns columns) {
    ForwardArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    gather_terms(args, step, frame, begin, false);
    if (step.bias >= 0)
        args.bias = store_.values(step.bias);
    else if (folded_ && !step.products.empty())
        args.bias = (*folded_)[step.products[0].weight].bias.data();
    if (step.branch.z >= 0) args.branch = branch(step, frame, begin, end, columns);
    args.activation = step.activation;
    args.mask = mask(mask_, step.dropout, step.dropout_site, step, frame, begin, end, columns);
    args.argument = write(step.argument, frame, begin);
    args.out = write(step.out, frame, begin);
    args.wide = wide(step, frame, begin);
    return args;
}

template <class T>
BackwardDataArgs<T> StepRunner<T>::backward_data(const Step& step, const Frame<T>& frame, std::int64_t begin,
                                                 std::int64_t end, Columns columns) {
    BackwardDataArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    gather_terms(args, step, frame, begin, true);
    if (step.saved_has_dropout && device_.is_host())  // a device's epilogues multiply by masks alone
        args.scale = DropoutRule<Compute<T>>(step.dropout).kept;
    else
        args.mask = mask(mask_, step.dropout, step.dropout_site, step, frame, begin, end, columns);
    args.activation = step.activation;
    if (step.saved >= 0) args.saved = read(step.saved, frame, begin);
    args.saved_is_argument = step.saved_is_argument;
    args.out = write(step.out, frame, begin);
    return args;
}

template <class T>
void StepRunner<T>::moments(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                            const PartialSums<T>& sums) {
    kernels_.moments({end - begin, step.width, begin, read(step.branch.z, frame, begin), sums});
}

template <class T>
void StepRunner<T>::norm_sums(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                              const PartialSums<T>& sums) {
    const Norm<T>& norm = norms_.of_layer(step.branch.norm);
    NormSumsArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.first_row = begin;
    args.delta = read(step.delta, frame, begin);
    const Branch<T> b = branch(step, frame, begin, end, all_of(step));
    args.mask = b.mask;
    args.z = b.z;
    args.mean = norm.mean.data();
    args.inverse_deviation = norm.inverse_deviation.data();
    args.sums = sums;
    kernels_.norm_sums(args);
}

template <class T>
NormBackwardArgs<T> StepRunner<T>::norm_backward(const Step& step, const Frame<T>& frame, std::int64_t begin,
                                                 std::int64_t end) {
    NormBackwardArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.delta = read(step.delta, frame, begin);
    const Branch<T> b = branch(step, frame, begin, end, all_of(step));
    args.mask = b.mask;
    if (step.branch.norm >= 0) {
        const Norm<T>& norm = norms_.of_layer(step.branch.norm);
        args.z = b.z;
        args.mean = norm.mean.data();
        args.inverse_deviation = norm.inverse_deviation.data();
        args.scale = norm.scale.data();
        args.mean_d = norm.mean_d.data();
        args.mean_dx = norm.mean_dx.data();
    }
    args.out = write(step.out, frame, begin);
    return args;
}

template <class T>
void StepRunner<T>::gate(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    GateArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.h = read(step.gate_h, frame, begin);
    args.t = read(step.gate_t, frame, begin);
    args.x = read(step.gate_x, frame, begin);
    args.mask = mask(mask_, step.dropout, step.dropout_site, step, frame, begin, end, all_of(step));
    args.out = write(step.out, frame, begin);
    args.wide = wide(step, frame, begin);
    kernels_.gate(args);
}

template <class T>
void StepRunner<T>::gate_backward(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    GateBackwardArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.gradient = read(step.delta, frame, begin);
    args.h = read(step.gate_h, frame, begin);
    args.t = read(step.gate_t, frame, begin);
    args.x = read(step.gate_x, frame, begin);
    args.activation = step.activation;
    if (step.saved >= 0) args.saved = read(step.saved, frame, begin);
    args.saved_is_argument = step.saved_is_argument;
    args.d_h = write(step.d_h, frame, begin);
    args.d_t = write(step.d_t, frame, begin);
    args.d_x = write(step.d_x, frame, begin);
    kernels_.gate_backward(args);
}

template <class T>
LossArgs<T> StepRunner<T>::loss(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    const LossTarget<T>& t = frame.target;
    const std::int64_t row = frame.first_row + begin;
    LossArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.loss = t.loss;
    if constexpr (computes_itself<T>)
        args.logits = read(plan_.output, frame, begin);
    else
        args.logits = from(frame.logits, begin);
    args.unrounded = {unrounded_.data(), unrounded_stride_};
    if (t.labels) args.labels = t.labels + row;
    if (t.targets.data) args.targets = {t.targets.data + row * t.targets.stride, t.targets.stride};
    args.class_weight = t.class_weight;
    if (t.sample_weight) args.sample_weight = t.sample_weight + row;
    args.label_smoothing = t.label_smoothing;
    args.delta = t.delta;
    args.normaliser = t.normaliser;
    args.gradient = write(step.out, frame, begin);
    args.row_loss = t.row_loss + row;
    args.loss_sums = t.loss_sums;
    return args;
}

template class StepRunner<float>;
template class StepRunner<double>;
template class StepRunner<bfloat16>;
template class StepRunner<bfloat16x2>;

}  // namespace resnetcore

#include "runtime/step_arguments.h"

#include <algorithm>

#include "math/activation.h"
#include "topology/memory.h"

namespace resnetcore {
namespace {

constexpr std::uint32_t dropout_purpose = 1;  // low byte of a Philox purpose; the site is above it

}  // namespace

template <class T>
StepArguments<T>::StepArguments(const Plan& plan, Device& device, const ParameterStore<T>& store, const Norms<T>& norms,
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
      rows_(rows),
      pass_bits_(device) {
    reserve_terms();
    reserve_passes();
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
MutableRows<T> StepArguments<T>::write(BufferId id, const Frame<T>& frame, std::int64_t row) const {
    if (id < 0) return {};
    if constexpr (computes_itself<T>)
        if (id == frame.output) return rows_from(frame.output_rows, row);
    const std::int64_t offset = plan_.buffers[id].offset, stride = strides_[id], kept = plan_.kept_elements;
    if (plan_.buffers[id].of_tile)
        return {frame.tile + offset * frame.tile_rows + (row - frame.tile_begin) * stride, stride};
    T* base = offset < kept ? frame.kept + offset * frame.rows : frame.arena + (offset - kept) * frame.rows;
    return {base + row * stride, stride};
}

template <class T>
Rows<T> StepArguments<T>::read(BufferId id, const Frame<T>& frame, std::int64_t row) const {
    if constexpr (computes_itself<T>)
        if (id == 0) return rows_from(frame.input, row);
    return write(id, frame, row);
}

// Where a step that ends in the outputs leaves them unrounded.
template <class T>
MutableRows<Compute<T>> StepArguments<T>::wide(const Step& step, const Frame<T>& frame, std::int64_t row) const {
    if (computes_itself<T> || step.out != plan_.output) return {};
    return rows_from(frame.logits.data ? frame.logits : frame.output_rows, row);
}

// For one step; or, where the device takes chains, for all steps.
template <class T>
void StepArguments<T>::reserve_terms() {
    std::size_t sources = 0, identities = 0;
    for (const Phase& phase : plan_.phases)
        for (const Step& step : phase.steps) sources += step.products.size(), identities += step.identities.size();
    const std::size_t one = static_cast<std::size_t>(plan_.max_terms);
    sources_.reserve(kernels_.chain ? sources : one);
    identities_.reserve(kernels_.chain ? identities : one);
}

// visit(buffer, words): of activations that g′ is taken of, but those that outlive a call, as another one's outputs
// would be taken for them.
template <class T>
template <class Visit>
void StepArguments<T>::each_kept(Visit visit) const {
    if (!kernels_.pass_words || plan_.kept_elements > 0) return;
    for (const Phase& phase : plan_.phases)
        for (const Step& step : phase.steps) {
            if (step.kind != StepKind::backward_data || step.saved < 0 || step.saved_is_argument) continue;
            if (step.activation != find_type(Relu::name, Activations{}) || step.dropout > 0) continue;
            const std::int64_t words = kernels_.pass_words(rows_, step.width);
            if (words > 0) visit(step.saved, words);
        }
}

template <class T>
bool StepArguments<T>::has_pass_room() const {
    std::int64_t all = 0;
    each_kept([&](BufferId, std::int64_t words) { all += words; });
    return all <= pass_bits_.size();
}

template <class T>
void StepArguments<T>::reserve_passes() {
    std::int64_t all = 0;
    each_kept([&](BufferId, std::int64_t words) { all += words; });
    pass_bits_.reserve(all);
    passes_.resize(plan_.buffers.size());
    std::int64_t begin = 0;
    each_kept([&](BufferId id, std::int64_t words) {
        passes_[static_cast<std::size_t>(id)].bits = pass_bits_.data() + begin;
        begin += words;
    });
}

// None where there is no room for them.
template <class T>
Passes* StepArguments<T>::passes(BufferId id) {
    if (id < 0 || !passes_[static_cast<std::size_t>(id)].bits) return nullptr;
    return &passes_[static_cast<std::size_t>(id)];
}

template <class T>
template <class Args>
void StepArguments<T>::gather_terms(Args& args, const Step& step, const Frame<T>& frame, std::int64_t row,
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
std::int64_t StepArguments<T>::mask_room(std::int64_t width, const DividedColumns& divided) const {
    if (width == 0 || divided.rows == 0) return 0;
    const std::int64_t panels = panel_count(width, kernels_.panel), share = panel_count(panels, divided.threads);
    return std::max(divided.rows * std::min(share * kernels_.panel, width) + width, divided.beside * width);
}

template <class T>
Rows<Compute<T>> StepArguments<T>::mask(AlignedArray<Compute<T>>& memory, double probability, std::uint32_t site,
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
Branch<T> StepArguments<T>::branch(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
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
ForwardArgs<T> StepArguments<T>::forward(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
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
    args.passes = passes(step.out);
    if (args.passes) args.passes->there = false;  // those that may be are of what was made before
    return args;
}

template <class T>
BackwardDataArgs<T> StepArguments<T>::backward_data(const Step& step, const Frame<T>& frame, std::int64_t begin,
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
    args.passes = passes(step.saved);
    args.out = write(step.out, frame, begin);
    return args;
}

template <class T>
MomentsArgs<T> StepArguments<T>::moments(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end,
                                         const PartialSums<T>& sums) const {
    return {end - begin, step.width, begin, read(step.branch.z, frame, begin), sums};
}

template <class T>
NormSumsArgs<T> StepArguments<T>::norm_sums(const Step& step, const Frame<T>& frame, std::int64_t begin,
                                            std::int64_t end, const PartialSums<T>& sums) {
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
    return args;
}

template <class T>
NormBackwardArgs<T> StepArguments<T>::norm_backward(const Step& step, const Frame<T>& frame, std::int64_t begin,
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
GateArgs<T> StepArguments<T>::gate(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    GateArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.h = read(step.gate_h, frame, begin);
    args.t = read(step.gate_t, frame, begin);
    args.x = read(step.gate_x, frame, begin);
    args.mask = mask(mask_, step.dropout, step.dropout_site, step, frame, begin, end, all_of(step));
    args.out = write(step.out, frame, begin);
    args.wide = wide(step, frame, begin);
    return args;
}

template <class T>
GateBackwardArgs<T> StepArguments<T>::gate_backward(const Step& step, const Frame<T>& frame, std::int64_t begin,
                                                    std::int64_t end) const {
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
    return args;
}

template <class T>
LossArgs<T> StepArguments<T>::loss(const Step& step, const Frame<T>& frame, std::int64_t begin, std::int64_t end) {
    const LossTarget<T>& t = frame.target;
    const std::int64_t row = frame.first_row + begin;
    LossArgs<T> args;
    args.rows = end - begin;
    args.columns = step.width;
    args.loss = t.loss;
    if constexpr (computes_itself<T>)
        args.logits = read(plan_.output, frame, begin);
    else
        args.logits = rows_from(frame.logits, begin);
    args.unrounded = {unrounded_.data(), unrounded_stride_};
    if (t.labels) args.labels = t.labels + row;
    args.targets = rows_from(t.targets, row);
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

template class StepArguments<float>;
template class StepArguments<double>;
template class StepArguments<bfloat16>;
template class StepArguments<bfloat16x2>;

}  // namespace resnetcore

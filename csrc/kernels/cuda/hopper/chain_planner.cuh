// How a chain's first steps become a program: which array lies where on the chip, and for how long.
//
// Invariant: blocks do their own rows only, each at its own pace. So a program ends where a step would write over
// memory that another block's rows may still be read from, or were written to.
#pragma once

#include <algorithm>

#include "kernels/cuda/hopper/chain_norm.cuh"
#include "kernels/cuda/hopper/chain_program.cuh"
#include "kernels/cuda/hopper/strip.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// A step of either direction.
struct ChainLink {
    std::int64_t rows, columns;
    const Source<bfloat16>* sources;
    int n_sources;
    const Rows<bfloat16>* identity;
    int n_identity;
    Rows<bfloat16> normed;  // what a norm is of: z, or the δ that goes back through it
    MutableRows<bfloat16> out;
};
inline bool has_norm(const ChainStep<bfloat16>& step) { return step.kind >= ChainKind::apply_norm; }
// Where a step forward leaves its passes, or one back finds them; null where it doesn't.
inline Passes* kept_passes(const ChainStep<bfloat16>& step) {
    const bool forward = keeps_passes() && (step.kind == ChainKind::forward || step.kind == ChainKind::apply_norm);
    return forward && step.forward.passes && is_activation<Relu>(step.forward.activation) ? step.forward.passes
                                                                                          : nullptr;
}
inline const Passes* found_passes(const ChainStep<bfloat16>& step) {
    const BackwardDataArgs<bfloat16>& args = step.data;
    const bool found = step.kind == ChainKind::backward_data && args.passes && args.passes->there;
    return found && is_activation<Relu>(args.activation) && !args.saved_is_argument ? args.passes : nullptr;
}
inline ChainLink link_of(const ChainStep<bfloat16>& step) {
    const auto link = [](const auto& args, const Rows<bfloat16>& normed) {
        return ChainLink{args.rows,     args.columns,    args.sources, args.n_sources,
                         args.identity, args.n_identity, normed,       args.out};
    };
    if (step.kind == ChainKind::backward_data) return link(step.data, {});
    if (step.kind != ChainKind::undo_norm) return link(step.forward, step.forward.branch.z);
    const NormBackwardArgs<bfloat16>& undo = step.undo;
    return {undo.rows, undo.columns, nullptr, 0, nullptr, 0, undo.delta, undo.out};
}

class ChainPlanner {
public:
    ChainPlanner(const ChainArgs<bfloat16>& args, bool takes_norms, ChainProgram& program, ChainNorms& norms)
        : args_(args), takes_norms_(takes_norms), program_(program), norms_(norms) {}

    // Makes a program of the first steps; of how many, or 0.
    // A block has as many rows as there are for each of so many processors, or fewer where their activations have no
    // room; then warpgroups share rows. Where there are norms, blocks are those that meet.
    std::int64_t plan(std::int64_t processors) {
        std::int64_t n = 0;
        while (n < args_.n_steps && takes(args_.steps[n])) ++n;
        program_.rows = static_cast<std::int32_t>(link_of(args_.steps[0]).rows);
        while (n > 1) {
            std::int64_t most = 0;
            int row_groups = chain_groups;
            const bool norms = std::any_of(args_.steps, args_.steps + n, has_norm);
            const std::int64_t blocks =
                norms ? std::min<std::int64_t>(processors, ChainNorms::most_blocks) : processors;
            while (row_groups > 1 && program_.rows <= row_groups / 2 * group_rows * blocks) row_groups /= 2;
            for (; row_groups > 0; row_groups /= 2) {
                program_.row_groups = row_groups;
                may_meet_ = program_.tiles() <= static_cast<std::uint32_t>(blocks);
                const std::int64_t fitting = add_steps(n);
                if (fitting == n) return n;
                most = std::max(most, fitting);
            }
            n = most;
        }
        return 0;
    }

private:
    // Rows of an array in global memory, which some operation reads or writes.
    struct Region {
        const char *begin, *end;
        std::int64_t row_bytes;
        bool written;
    };
    // Room on the chip for one activation, or one δ: whose it is, and the last step that uses it.
    struct Slot {
        const bfloat16* data = nullptr;
        std::int64_t last = -1;
    };

    static bool is_narrow(std::int64_t width) { return width > 0 && width <= chain_width; }
    bool takes(const ChainStep<bfloat16>& step) const {
        const ChainLink link = link_of(step);
        if (has_norm(step) && !takes_norms_) return false;
        // A step alone would leave Hopper's path above so many, for one with other bits.
        if (link.n_sources > many_terms || link.n_identity > many_terms) return false;
        if (!is_narrow(link.columns) || !on_boundary(link.out)) return false;
        for (int s = 0; s < link.n_sources; ++s)
            if (!is_narrow(link.sources[s].inner) || !on_boundary(link.sources[s].rows)) return false;
        if (!are_on_boundaries(link.identity, link.n_identity) || !on_boundary(link.normed)) return false;
        if (step.kind == ChainKind::backward_data) return !step.data.mask.data && on_boundary(step.data.saved);
        if (step.kind == ChainKind::undo_norm) return !step.undo.mask.data && on_boundary(step.undo.z);
        const Branch<bfloat16>& branch = step.forward.branch;
        if (step.kind == ChainKind::apply_norm ? branch.mask.data != nullptr : branch.z.data != nullptr) return false;
        return !step.forward.mask.data && on_boundary(step.forward.argument);
    }
    static std::int64_t boxes_of(std::int64_t width) { return (width + box_width - 1) / box_width; }

    bool uses(std::int64_t step, const bfloat16* data) const {
        const ChainLink link = link_of(args_.steps[step]);
        for (int s = 0; s < link.n_sources; ++s)
            if (link.sources[s].rows.data == data) return true;
        return link.normed.data == data || is_identity(link, data);
    }
    static bool is_identity(const ChainLink& link, const bfloat16* data) {
        for (int i = 0; i < link.n_identity; ++i)
            if (link.identity[i].data == data) return true;
        return false;
    }
    // Of the steps from `first` on, until the memory is another output's.
    std::int64_t last_use(const bfloat16* data, std::int64_t first) const {
        std::int64_t last = -1;
        for (std::int64_t step = first; step < n_; ++step) {
            if (uses(step, data)) last = step;
            if (link_of(args_.steps[step]).out.data == data) break;
        }
        return last;
    }

    // How many of the first n steps fit: all, or those before the first that does not.
    std::int64_t add_steps(std::int64_t n) {
        n_ = n, n_slots_ = n_regions_ = n_maps_ = n_terms_ = n_identities_ = 0, stages_ = 0;
        program_.n_operations = norms_.count = 0;
        std::int64_t widest = 0;
        for (std::int64_t step = 0; step < n; ++step) {
            const ChainLink link = link_of(args_.steps[step]);
            widest = std::max(widest, link.columns);
            for (int s = 0; s < link.n_sources; ++s) widest = std::max(widest, link.sources[s].inner);
        }
        slot_boxes_ = boxes_of(widest);
        const bool norms = std::any_of(args_.steps, args_.steps + n, has_norm);
        program_.norm_width = norms ? static_cast<std::uint32_t>(slot_boxes_ * box_width) : 0;
        for (Slot& slot : slots_) slot = {};
        for (std::int64_t step = 0; step < n; ++step)
            if (!add_step(step)) return step;
        const std::uint32_t boxes = static_cast<std::uint32_t>(n_slots_ * slot_boxes_);
        std::uint32_t room = most_stages;
        while (chain_bytes(program_, boxes, room) > most_shared_bytes) --room;
        program_.resident = stages_ <= room;
        program_.stages = program_.resident ? std::max(stages_, least_stages) : room;
        program_.boxes = boxes;
        program_.largest_a = args_.largest_a, program_.largest_delta = args_.largest_delta;
        return n;
    }

    bool add_step(std::int64_t number) {
        const ChainStep<bfloat16>& step = args_.steps[number];
        const ChainLink link = link_of(step);
        ChainOperation made;
        made.columns = static_cast<std::int16_t>(link.columns);
        made.is_a = step.is_a && args_.largest_a, made.is_delta = step.is_delta && args_.largest_delta;
        if (!add_terms(number, link, made) || !add_identities(link, made) || !add_norm(number, step, made))
            return false;
        const int slot = find_room_for_output(number, step);
        if (slot < 0) return false;
        made.first_box = first_box(slot);
        if (is_kept(number) && link.out.data) {
            made.out = link.out;
            if (!touch(Rows<bfloat16>(link.out), true)) return false;
        }
        switch (step.kind) {
            case ChainKind::backward_data:
                return finish_backward(step, made) && add(made);
            case ChainKind::undo_norm:
                made.kind = ChainOperation::Kind::undo_norm;
                return add_load(step.undo.z, link.columns, slot) && add(made);
            default:
                return finish_forward(step, made) && add(made);
        }
    }
    // What is normed is on the chip, and its sums are put together before the operation.
    bool add_norm(std::int64_t number, const ChainStep<bfloat16>& step, ChainOperation& made) {
        if (!has_norm(step)) return true;
        const ChainLink link = link_of(step);
        const int slot = find_rows(number, link.normed, link.columns);
        if (slot < 0 || !may_meet_ || norms_.count == ChainNorms::most) return false;
        made.normed_box = first_box(slot), made.norm = static_cast<std::int16_t>(norms_.count);
        norms_.all[norms_.count++] = {step.moments, step.sums, step.undo.mean, step.undo.inverse_deviation,
                                      step.undo.scale};
        return true;
    }

    bool finish_forward(const ChainStep<bfloat16>& step, ChainOperation& made) {
        const ForwardArgs<bfloat16>& args = step.forward;
        made.kind = ChainOperation::Kind::forward;
        set_activation(args.activation, made);
        made.bias = args.bias;
        made.argument = args.argument, made.wide = args.wide;
        if (const Passes* passes = kept_passes(step)) made.passes = passes->bits;
        return touch(Rows<bfloat16>(args.argument), true) && touch(Rows<float>(args.wide), true);
    }
    bool finish_backward(const ChainStep<bfloat16>& step, ChainOperation& made) {
        const BackwardDataArgs<bfloat16>& args = step.data;
        made.kind = ChainOperation::Kind::backward;
        set_activation(args.activation, made);
        if (is_activation<Identity>(args.activation)) return true;
        if (const Passes* passes = found_passes(step)) {
            made.passes = passes->bits;
            return true;
        }
        made.in = args.saved, made.saved_is_argument = args.saved_is_argument;
        return touch(args.saved, false);
    }
    static void set_activation(int activation, ChainOperation& made) {
        made.activation = static_cast<std::uint8_t>(activation);
        made.is_relu = is_activation<Relu>(activation);
    }
    bool add(const ChainOperation& operation) {
        if (program_.n_operations == ChainProgram::most_operations) return false;
        program_.operations[program_.n_operations++] = operation;
        return true;
    }

    bool add_terms(std::int64_t number, const ChainLink& link, ChainOperation& made) {
        made.first_term = static_cast<std::int16_t>(n_terms_);
        for (int s = 0; s < link.n_sources; ++s) {
            const Source<bfloat16>& source = link.sources[s];
            const int slot = find_rows(number, source.rows, source.inner);
            const std::int64_t steps = boxes_of(source.inner);
            if (slot < 0 || n_maps_ == ChainProgram::most_maps || n_terms_ + steps > ChainProgram::most_terms)
                return false;
            if (!encode_panels(program_.maps[n_maps_], source.panels, source.inner, link.columns, stage_terms, 1))
                return false;
            for (std::int64_t step = 0; step < steps; ++step)
                program_.terms[n_terms_++] = {static_cast<std::uint8_t>(n_maps_), static_cast<std::uint8_t>(step),
                                              static_cast<std::uint8_t>(first_box(slot) + step)};
            ++n_maps_;
        }
        made.n_terms = static_cast<std::int16_t>(n_terms_ - made.first_term);
        const std::int64_t at_a_time = program_.column_groups();
        stages_ += static_cast<std::uint32_t>(made.n_terms * ((boxes_of(link.columns) + at_a_time - 1) / at_a_time));
        return true;
    }
    bool add_identities(const ChainLink& link, ChainOperation& made) {
        made.first_identity = static_cast<std::int16_t>(n_identities_);
        made.n_identities = static_cast<std::int16_t>(link.n_identity);
        if (n_identities_ + link.n_identity > ChainProgram::most_identities) return false;
        for (int i = 0; i < link.n_identity; ++i) {
            const int slot = find(link.identity[i].data);
            if (slot < 0 && !touch(link.identity[i], false)) return false;
            program_.identities[n_identities_++] = {link.identity[i], slot < 0 ? -1 : first_box(slot)};
        }
        return true;
    }

    std::int16_t first_box(int slot) const { return static_cast<std::int16_t>(slot * slot_boxes_); }
    int find(const bfloat16* data) const {
        for (int slot = 0; slot < n_slots_; ++slot)
            if (slots_[slot].data == data) return slot;
        return -1;
    }
    // Where nothing lies that this step or a later one uses.
    int find_free(std::int64_t number) {
        for (int slot = 0; slot < n_slots_; ++slot)
            if (slots_[slot].last < number) return slot;
        const std::uint32_t boxes = static_cast<std::uint32_t>((n_slots_ + 1) * slot_boxes_);
        if (n_slots_ == most_slots || chain_bytes(program_, boxes, least_stages) > most_shared_bytes) return -1;
        return n_slots_++;
    }
    // What the chain has not made itself is loaded.
    int find_rows(std::int64_t number, const Rows<bfloat16>& rows, std::int64_t columns) {
        const int there = find(rows.data);
        if (there >= 0) return there;
        const int slot = find_free(number);
        if (slot < 0) return -1;
        slots_[slot] = {rows.data, last_use(rows.data, number)};
        return add_load(rows, columns, slot) ? slot : -1;
    }
    bool add_load(const Rows<bfloat16>& rows, std::int64_t columns, int slot) {
        ChainOperation load;
        load.columns = static_cast<std::int16_t>(columns);
        load.in = rows;
        load.first_box = first_box(slot);
        return touch(rows, false) && add(load);
    }
    // Whether an output may lie where these rows are, which its own threads read of, if nobody uses them later and no
    // product reads them.
    bool may_write_over(int slot, std::int64_t number, const ChainLink& link) const {
        if (slot < 0 || slots_[slot].last > number) return false;
        for (int s = 0; s < link.n_sources; ++s)
            if (find(link.sources[s].rows.data) == slot) return false;
        return true;
    }
    // In place of an identity skip, or of what is normed going forward, or where there is room.
    int find_room_for_output(std::int64_t number, const ChainStep<bfloat16>& step) {
        const ChainLink link = link_of(step);
        int slot = -1;
        for (int i = 0; i < link.n_identity && slot < 0; ++i) {
            const int there = find(link.identity[i].data);
            if (may_write_over(there, number, link)) slot = there;
        }
        if (slot < 0 && step.kind == ChainKind::apply_norm) {
            const int there = find(link.normed.data);
            if (may_write_over(there, number, link)) slot = there;
        }
        if (slot < 0) slot = find_free(number);
        if (slot < 0) return -1;
        const int old = link.out.data ? find(link.out.data) : -1;
        if (old >= 0) slots_[old].data = nullptr;  // its memory is this step's now
        slots_[slot] = {link.out.data, std::max(number, last_use(link.out.data, number + 1))};
        return slot;
    }

    // From memory, whether or not it is on the chip.
    static bool reads_again(const ChainStep<bfloat16>& step, const bfloat16* data) {
        return (step.kind == ChainKind::backward_data && step.data.saved.data == data) ||
               (step.kind == ChainKind::undo_norm && step.undo.z.data == data);
    }
    // Whether someone reads the step's output from memory.
    bool is_kept(std::int64_t number) const {
        if (args_.steps[number].last_reader >= n_) return true;
        const bfloat16* out = link_of(args_.steps[number]).out.data;
        for (std::int64_t later = number + 1; later < n_; ++later)
            if (reads_again(args_.steps[later], out)) return true;
        return false;
    }

    // False where another block could write what this one reads, or the other way round: where an array that is written
    // shares memory with another one. Of one and the same array, rows are the block's own.
    template <class T>
    bool touch(const Rows<T>& rows, bool written) {
        if (!rows.data) return true;
        const std::int64_t row_bytes = rows.stride * static_cast<std::int64_t>(sizeof(T));
        const char* begin = reinterpret_cast<const char*>(rows.data);
        const char* end = begin + row_bytes * link_of(args_.steps[0]).rows;
        for (int i = 0; i < n_regions_; ++i) {
            Region& one = regions_[i];
            if (one.end <= begin || end <= one.begin) continue;
            if (one.begin != begin || one.row_bytes != row_bytes) {
                if (one.written || written) return false;
                continue;
            }
            one.written |= written;
            written |= one.written;
        }
        if (n_regions_ == most_regions) return false;
        regions_[n_regions_++] = {begin, end, row_bytes, written};
        return true;
    }

    static constexpr int most_slots = 16;
    static constexpr int most_regions = 4 * ChainProgram::most_operations + ChainProgram::most_identities;

    const ChainArgs<bfloat16>& args_;
    const bool takes_norms_;
    ChainProgram& program_;
    ChainNorms& norms_;
    bool may_meet_ = true;  // each block has one tile
    std::int64_t n_ = 0, slot_boxes_ = 1;
    Slot slots_[most_slots];
    Region regions_[most_regions];
    int n_slots_ = 0, n_regions_ = 0, n_maps_ = 0, n_terms_ = 0, n_identities_ = 0;
    std::uint32_t stages_ = 0;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

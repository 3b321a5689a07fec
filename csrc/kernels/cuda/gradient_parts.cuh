// A weight's gradient in parts along the batch, where its tiles alone would leave most of the GPU idle: each part is
// summed by blocks of its own and waits in scratch memory, until the parts are added in order (finish_gradient.cuh).
//
// Invariant: how many parts there are is decided by the sizes of the call, in numbers and in bytes, and by the number
// of multiprocessors, so that a GPU gives the same bits every time; and parts are whole stretches of `gradient_stretch`
// rows, as sums are cut everywhere.
#pragma once

#include "kernels/cuda/functions.h"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {

template <class C>
struct GradientParts {
    C* weight = nullptr;  // packed like the panels, part after part; null where there is one
    C* bias = nullptr;    // a panel's columns each, part after part
    std::int64_t rows = 0, inner = 0, first_panel = 0, panels = 0;
    int count = 1;

    RC_HD bool is_divided() const { return count > 1; }
    RC_HD std::int64_t stretches() const { return (rows + gradient_stretch - 1) / gradient_stretch; }
    RC_HD std::int64_t first_row(int part) const { return stretches() * part / count * gradient_stretch; }
    RC_HD std::int64_t last_row(int part) const {
        const std::int64_t next = first_row(part + 1);
        return next < rows ? next : rows;
    }
    RC_HD std::int64_t part_size() const { return panels * inner * panel_width; }
    RC_HD C* weight_at(int part, std::int64_t panel, std::int64_t row, std::int64_t column) const {
        return weight + part * part_size() + ((panel - first_panel) * inner + row) * panel_width + column;
    }
    RC_HD C* bias_at(int part, std::int64_t panel, std::int64_t column) const {
        return bias + (part * panels + panel - first_panel) * panel_width + column;
    }
};

// With one part, a panel's bias of the widest layer.
static_assert(max_columns * std::int64_t{sizeof(double)} <= scratch_bytes, "room for the bias alone");

// Of the current device. The time of each number of parts is that of the blocks that run one after another, and of
// adding the parts: nanoseconds of an H200, whose ratios are what counts.
template <class T>
GradientParts<Compute<T>> divide(const BackwardWeightsArgs<T>& args, const Scratch& scratch) {
    using C = Compute<T>;
    constexpr std::int64_t side = 128;  // of a tile on the fast path; parts are the same on all
    constexpr double stretch = 800, tile = 4000, sum_of_parts = 3000, bytes_per_ns = 2000;
    GradientParts<C> parts;
    parts.rows = args.rows, parts.inner = args.inner;
    parts.first_panel = args.first_panel, parts.panels = args.last_panel - args.first_panel;
    parts.bias = static_cast<C*>(scratch.data());
    const std::int64_t tiles = (args.inner + side - 1) / side * ((parts.panels * panel_width + side - 1) / side);
    const std::int64_t at_a_time = processor_count(),
                       part_bytes = (parts.part_size() + parts.panels * panel_width) * std::int64_t{sizeof(C)};
    const auto time = [&](std::int64_t count) {
        const double rounds = static_cast<double>((tiles * count + at_a_time - 1) / at_a_time),
                     alone = static_cast<double>((parts.stretches() + count - 1) / count);
        const double written_and_read = 2 * static_cast<double>(count * part_bytes);
        return rounds * (alone * stretch + tile) + (count > 1 ? sum_of_parts + written_and_read / bytes_per_ns : 0);
    };
    const std::int64_t most = tiles > 0 ? parts.stretches() : 1;
    for (std::int64_t count = 2; count <= most && tiles * (count - 1) < 2 * at_a_time; ++count)
        if (count * part_bytes <= scratch_bytes && time(count) < time(parts.count))
            parts.count = static_cast<int>(count);
    if (parts.is_divided()) parts.weight = parts.bias + parts.count * parts.panels * panel_width;
    return parts;
}

}  // namespace cuda
}  // namespace resnetcore

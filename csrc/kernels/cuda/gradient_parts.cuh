// The gradients of several weights, which are taken in one launch, in parts along the batch where all their tiles
// together would leave most of the GPU idle: each part is summed by blocks of its own and waits in scratch memory,
// until the parts are added in order (finish_gradient.cuh). Of a bias' gradient a part is taken in shares: tiles of
// other rows of W have the same columns of δ, and each sums some of the part's stretches.
//
// Invariant: how many parts and shares there are is decided by the sizes of the group, in numbers and in bytes, and by
// the number of multiprocessors, so that a GPU gives the same bits every time; and both are whole stretches of
// `gradient_stretch` rows.
#pragma once

#include <algorithm>

#include "kernels/cuda/functions.h"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {

// Of W, on the fast path; parts and shares are the same on all.
constexpr int weight_tile_side = 128;

template <class C>
struct GradientParts {
    C* weight = nullptr;  // packed like the panels, part after part; null where there is one
    C* bias = nullptr;    // a panel's columns each, share after share, part after part
    std::int64_t rows = 0, inner = 0, first_panel = 0, panels = 0;
    int count = 1;
    int bias_shares = 1;  // of each part

    RC_HD int tiles_down() const { return static_cast<int>((inner + weight_tile_side - 1) / weight_tile_side); }
    RC_HD int tiles_across() const {
        return static_cast<int>((panels * panel_width + weight_tile_side - 1) / weight_tile_side);
    }
    RC_HD bool is_divided() const { return count > 1; }
    RC_HD std::int64_t stretches() const { return (rows + gradient_stretch - 1) / gradient_stretch; }
    RC_HD std::int64_t first_row(int part) const { return stretches() * part / count * gradient_stretch; }
    RC_HD std::int64_t last_row(int part) const {
        const std::int64_t next = first_row(part + 1);
        return next < rows ? next : rows;
    }
    // So many at the most; each has a stretch.
    void share_bias(std::int64_t most) {
        bias_shares = static_cast<int>(std::max<std::int64_t>(1, std::min(most, stretches() / count)));
    }
    // A share's stretches lie so far apart: whoever sums while others multiply falls behind for one of them at a time.
    RC_HD std::int64_t first_row(int part, int share) const { return first_row(part) + share * gradient_stretch; }
    RC_HD std::int64_t share_step() const { return bias_shares * gradient_stretch; }
    RC_HD std::int64_t part_size() const { return panels * inner * panel_width; }
    RC_HD std::int64_t bias_size() const { return bias_shares * panels * panel_width; }  // of a part
    RC_HD std::int64_t all_of_part() const { return part_size() + bias_size(); }
    RC_HD C* weight_at(int part, std::int64_t panel, std::int64_t row, std::int64_t column) const {
        return weight + part * part_size() + ((panel - first_panel) * inner + row) * panel_width + column;
    }
    RC_HD C* bias_at(int part, int share, std::int64_t panel, std::int64_t column) const {
        return bias + part * bias_size() + (share * panels + panel - first_panel) * panel_width + column;
    }
};

// A parameter of kernels, which may be 32,764 bytes, with a tensor map for each `a` and each `delta`.
template <class T>
struct WeightGroup {
    static constexpr int most = 32;

    BackwardWeightsArgs<T> calls[most];
    GradientParts<Compute<T>> parts[most];
    int count = 0;
};

// With one part and one share, the bias of the widest layer.
static_assert(max_columns * std::int64_t{sizeof(double)} <= scratch_bytes, "room for the bias alone");

// As one part, without memory yet: as many shares as there are tiles that can have one, and room.
template <class T>
GradientParts<Compute<T>> whole_batch(const BackwardWeightsArgs<T>& args) {
    GradientParts<Compute<T>> parts;
    parts.rows = args.rows, parts.inner = args.inner;
    parts.first_panel = args.first_panel, parts.panels = args.last_panel - args.first_panel;
    const std::int64_t share_bytes = parts.bias_size() * std::int64_t{sizeof(Compute<T>)};
    parts.share_bias(
        std::min(std::int64_t{parts.tiles_down()}, scratch_bytes / std::max<std::int64_t>(1, share_bytes)));
    return parts;
}

// The group's parts, in the current device's scratch memory. The time of each number of parts is that of the blocks
// that run one after another, and of adding the parts: nanoseconds of an H200, whose ratios are what counts.
template <class T>
void divide(WeightGroup<T>& group, const Scratch& scratch) {
    using C = Compute<T>;
    constexpr double stretch = 800, tile = 4000, sum_of_parts = 3000, bytes_per_ns = 2000;
    std::int64_t tiles = 0, part_bytes = 0;
    for (int m = 0; m < group.count; ++m) {
        const GradientParts<C>& parts = group.parts[m] = whole_batch(group.calls[m]);
        tiles += std::int64_t{parts.tiles_down()} * parts.tiles_across();
        part_bytes += parts.all_of_part() * std::int64_t{sizeof(C)};
    }
    const std::int64_t at_a_time = processor_count(), stretches = group.parts[0].stretches();
    const auto time = [&](std::int64_t count) {
        const double rounds = static_cast<double>((tiles * count + at_a_time - 1) / at_a_time),
                     alone = static_cast<double>((stretches + count - 1) / count);
        const double written_and_read = 2 * static_cast<double>(count * part_bytes);
        return rounds * (alone * stretch + tile) + (count > 1 ? sum_of_parts + written_and_read / bytes_per_ns : 0);
    };
    int best = 1;
    const std::int64_t most = tiles > 0 ? stretches : 1;
    for (std::int64_t count = 2; count <= most && tiles * (count - 1) < 2 * at_a_time; ++count)
        if (count * part_bytes <= scratch_bytes && time(count) < time(best)) best = static_cast<int>(count);
    C* room = static_cast<C*>(scratch.data());
    for (int m = 0; m < group.count; ++m) {
        GradientParts<C>& parts = group.parts[m];
        parts.count = best;
        parts.share_bias(parts.bias_shares);
        parts.bias = room;
        room += best * parts.bias_size();
        if (!parts.is_divided()) continue;
        parts.weight = room;
        room += best * parts.part_size();
    }
}

// How many of the calls are one group's: at most `most`, and as many as whose biases have room.
template <class T>
int group_size(const BackwardWeightsArgs<T>* calls, std::int64_t count, int most) {
    int n = 0;
    std::int64_t bytes = 0;
    for (; n < count && n < most; ++n) {
        bytes += whole_batch(calls[n]).bias_size() * std::int64_t{sizeof(Compute<T>)};
        if (n > 0 && bytes > scratch_bytes) break;
    }
    return n;
}

}  // namespace cuda
}  // namespace resnetcore

// dW = Aᵀ·δ and db = Σ δ in bfloat16, on Hopper, a tile of W at a time, and the optimizer on it: what
// backward_weights.cu does, by bulk copies and warpgroups' products, of several weights in one launch. The columns of δ
// are summed where they lie for the products, by warps that have nothing else to do.
//
// Invariant: terms are added in the order that they have there, and no block writes what another does: a warpgroup has
// 64 rows of W, which are whole tiles of the transpose.
#pragma once

#include <limits>
#include <utility>

#include "kernels/cuda/hopper/column_summer.cuh"
#include "kernels/cuda/hopper/strip.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/weight_tiles.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int summing_registers = 72, multiplying_registers = 216;
static_assert(summing_registers + using_groups * multiplying_registers <= registers_of_groups(1 + using_groups),
              "a block's registers");

struct WeightMaps {
    CUtensorMap a, delta;
    bool encode_rows(const BackwardWeightsArgs<bfloat16>& args) {
        return encode(a, args.a, args.rows, args.inner, stage_terms) &&
               encode(delta, args.delta, args.rows, args.columns, stage_terms);
    }
};

// Of a stage: two boxes of A, one for each warpgroup, then two of δ. Their rows are the sum's terms.
struct WeightOperands {
    static constexpr bool a_along_rows = true, b_along_columns = true;
    Shared mine;
    __device__ __forceinline__ std::uint64_t a(Shared stage, std::int64_t, int product) const {
        return across_terms(stage + mine, product, box_bytes);
    }
    __device__ __forceinline__ std::uint64_t b(Shared stage, int product) const {
        return across_terms(stage + 2 * box_bytes, product, box_bytes);
    }
};

// One for each of a group's members.
struct GroupMaps {
    WeightMaps of[WeightGroup<bfloat16>::most];
};

template <class T>
__device__ __forceinline__ void fill_stages(const TileRing& ring, const GroupMaps& maps, WeightTiles<T> tiles) {
    for (Place place; tiles.exists(); tiles.advance()) {
        const GradientParts<float>& parts = tiles.parts();
        const WeightMaps& of = maps.of[tiles.member()];
        const std::int32_t row = tiles.first_row();
        const std::int32_t column = static_cast<std::int32_t>(parts.first_panel * panel_width) + tiles.first_column();
        const std::int32_t end = static_cast<std::int32_t>(parts.last_row(tiles.part()));
        for (std::int32_t term = static_cast<std::int32_t>(parts.first_row(tiles.part())); term < end;
             term += stage_terms, ring.advance(place)) {
            const Shared stage = ring.begin_filling(place);
            for (int box = 0; box < 2; ++box) {
                const Shared at = stage + static_cast<std::uint32_t>(box) * box_bytes;
                copy_box(at, of.a, row + box * box_width, term, ring.full(place));
                copy_box(at + 2 * box_bytes, of.delta, column + box * box_width, term, ring.full(place));
            }
        }
    }
}

// A tile of W, and where its elements are in packed arrays.
struct WideWeightTile {
    const BackwardWeightsArgs<bfloat16>& args;
    std::int64_t first_row, first_panel;

    __device__ __forceinline__ std::int64_t row(int at) const { return first_row + at; }
    __device__ __forceinline__ std::int64_t panel(int column) const { return first_panel + column / panel_width; }
    __device__ __forceinline__ std::int64_t column(int at) const { return panel(at) * panel_width + at % panel_width; }
    __device__ __forceinline__ bool has(int at, int column) const {
        return row(at) < args.inner && panel(column) < args.last_panel;
    }
    // Eight neighbours. What A has of NaN and infinity makes NaN of a zero beside it.
    __device__ __forceinline__ Stretch<float, 8> sums(const RowVisit& at) const {
        Stretch<float, 8> x;
        load_stretch(at.place, x);
#pragma unroll
        for (int c = 0; c < 8; ++c)
            if (column(at.column) + c >= args.columns) x.at[c] = 0;
        return x;
    }
    // Where panels have so many rows.
    __device__ __forceinline__ std::int64_t packed(int at, int column, std::int64_t rows) const {
        return (panel(column) * rows + row(at)) * panel_width + column % panel_width;
    }
};

__device__ __forceinline__ void take_gradient(const WideWeightTile& tile, float (&total)[64]) {
#pragma unroll
    for (int i = 0; i < 64; i += 2) {
        const int row = first_row_of_warp() + row_of_sum(i), column = column_of_sum(i);
        if (!tile.has(row, column)) continue;
        const auto kept = read<2>(tile.args.gradient + tile.packed(row, column, tile.args.inner));
        total[i] = kept.at[0], total[i + 1] = kept.at[1];
    }
}

// Visits of eight neighbours each that are finished together: what they read of global memory is asked for before the
// first of them needs it. So many as there are registers for.
template <class Rule>
constexpr int visits_together = Rule::states == 0 ? 2 : 1;

// Leaves new values where the sums were, for `write_transposed`.
template <class Rule>
__device__ __forceinline__ void update_rows(const WideWeightTile& tile, Shared left) {
    constexpr int together = visits_together<Rule>;
    static_assert(Strip::count % together == 0, "whole batches");
    const BackwardWeightsArgs<bfloat16>& args = tile.args;
#pragma unroll 1
    for (int first = 0; first < Strip::count; first += together) {
        SlotStretch<float, 8> slot[together];
#pragma unroll
        for (int v = 0; v < together; ++v) {
            const RowVisit at(first + v, left);
            if (tile.has(at.row, at.column))
                slot[v] = read_slot<Rule, 8>(args.weight, tile.packed(at.row, at.column, args.inner));
        }
#pragma unroll
        for (int v = 0; v < together; ++v) {
            const RowVisit at(first + v, left);
            Stretch<float, 8> x = {};
            if (tile.has(at.row, at.column)) {
                x = tile.sums(at);
                x = update_slot<Rule>(args.weight, tile.packed(at.row, at.column, args.inner), slot[v], x,
                                      *args.weight_hyper);
                write(x, args.operands.panels + tile.packed(at.row, at.column, operand_rows<bfloat16>(args.inner)));
            }
            store_stretch(at.place, x);
        }
    }
}
__device__ __forceinline__ void keep_rows(const WideWeightTile& tile, Shared left) {
#pragma unroll 1
    for (int v = 0; v < Strip::count; ++v) {
        const RowVisit at(v, left);
        if (tile.has(at.row, at.column))
            write(tile.sums(at), tile.args.gradient + tile.packed(at.row, at.column, tile.args.inner));
    }
}

// Of the warpgroup's 64 rows: for each column of W, a row of the transpose. Rows that W does not have are its padding.
__device__ __forceinline__ void write_transposed(const WideWeightTile& tile, Shared left) {
    const BackwardWeightsArgs<bfloat16>& args = tile.args;
    static_assert(tile_columns == group_threads && group_rows == panel_width, "a thread has a column of a whole panel");
    const int first = (group() - 1) * group_rows, column = static_cast<int>(threadIdx.x) % group_threads;
    if (!tile.has(first, column) || tile.column(column) >= args.columns) return;
    const std::int64_t panel = tile.row(first) / panel_width,
                       begin = (panel * operand_rows<bfloat16>(args.columns) + tile.column(column)) * panel_width;
#pragma unroll 1
    for (int row = 0; row < group_rows; row += 8) {
        Stretch<float, 8> x;
#pragma unroll
        for (int i = 0; i < 8; ++i) x.at[i] = load(place_of_sum(left, first + row + i, column));
        write(x, args.operands.transposed + begin + row);
    }
}

__device__ __forceinline__ void keep_part(const WideWeightTile& tile, const GradientParts<float>& parts, int part,
                                          const float (&total)[64]) {
#pragma unroll
    for (int i = 0; i < 64; i += 2) {
        const int row = first_row_of_warp() + row_of_sum(i), column = column_of_sum(i);
        if (tile.has(row, column))
            write(Stretch<float, 2>{{total[i], total[i + 1]}},
                  parts.weight_at(part, tile.panel(column), tile.row(row), column % panel_width));
    }
}

template <class T>
__device__ __forceinline__ void finish_tiles(const TileShared& shared, WeightTiles<T> tiles) {
    const std::uint32_t meeting = static_cast<std::uint32_t>(group());
    const WeightOperands operands{static_cast<Shared>(group() - 1) * box_bytes};
    for (Place place; tiles.exists(); tiles.advance()) {
        const BackwardWeightsArgs<T>& args = tiles.call();
        const GradientParts<float>& parts = tiles.parts();
        const WideWeightTile tile{args, tiles.first_row(), args.first_panel + tiles.first_column() / panel_width};
        const std::int64_t rows = parts.last_row(tiles.part()) - parts.first_row(tiles.part());
        float total[64] = {};
        if (args.gradient && args.accumulate && !parts.is_divided()) take_gradient(tile, total);
        add_stages<terms_in_gradient>(shared.ring(), place, (rows + stage_terms - 1) / stage_terms, operands, total);
        if (parts.is_divided()) {
            keep_part(tile, parts, tiles.part(), total);
            continue;
        }
        leave_rows(total, shared.left);
        __syncwarp();
        if (args.gradient) {
            keep_rows(tile, shared.left);
            __syncwarp();  // before the next tile's
            continue;
        }
        visit_type(args.optimizer, Optimizers{}, [&](auto rule) { update_rows<decltype(rule)>(tile, shared.left); });
        meet_group(meeting);
        write_transposed(tile, shared.left);
        meet_group(meeting);  // before the next tile's
    }
}

// Of the group's first `members`.
template <class T>
__global__ void __launch_bounds__(block_threads, 1)
    wide_weights_kernel(const __grid_constant__ WeightGroup<T> weights, const __grid_constant__ GroupMaps maps,
                        int members, bool has_bias) {
#if defined(RC_HOPPER)
    if (!weights.calls[0].gradient && !permits(weights.calls[0].permission)) return;
    const TileShared shared;
    if (threadIdx.x == 0) shared.ring().make(using_groups * warps_of_group + (has_bias ? summing_warps : 0));
    __syncthreads();
    const WeightTiles<T> tiles(weights, members);
    if (group() == 0) {
        give_registers<summing_registers>();
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (warp == 0) {
            if (elect_one()) fill_stages(shared.ring(), maps, tiles);
        } else if (has_bias && warp <= summing_warps) {
            ColumnSummer(shared.ring(), warp - 1).sum_tiles(tiles);
        }
    } else {
        take_registers<multiplying_registers>();
        finish_tiles(shared, tiles);
    }
#endif
}

// That one launch takes. One alone where each weight has launches of its own: then its tiles have all multiprocessors.
template <class T>
int most_weights() {
    return std::is_same<T, bfloat16>::value && is_hopper(current_path()) ? WeightGroup<T>::most : 1;
}

// Whether a weight's gradient is for this path.
inline bool takes(const BackwardWeightsArgs<bfloat16>& args, WeightMaps& maps) {
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - tile_rows;
    return args.rows > 0 && args.inner > 0 && args.rows <= most && args.inner <= most && args.columns <= most &&
           on_boundaries(args.gradient, args.weight.value, args.weight.state[0], args.weight.state[1],
                         args.operands.panels, args.operands.transposed) &&
           maps.encode_rows(args);
}

// Sums of the gradients, and of the biases', of all members that are for this path: they come first then; of how many.
template <class T>
int launch_weights(WeightGroup<T>& group) {
    int members = 0;
    if constexpr (std::is_same<T, bfloat16>::value) {
        static_assert(sizeof(WeightGroup<T>) + sizeof(GroupMaps) + 8 <= 32764, "what a kernel's parameters may take");
        if (!is_hopper(current_path())) return 0;
        GroupMaps maps;
        int tiles = 0;
        bool has_bias = false;
        for (int m = 0; m < group.count; ++m) {
            if (!takes(group.calls[m], maps.of[members])) continue;
            std::swap(group.calls[m], group.calls[members]);
            std::swap(group.parts[m], group.parts[members]);
            tiles += WeightTiles<T>::count(group.parts[members]);
            has_bias |= group.calls[members].has_bias;
            ++members;
        }
        if (tiles > 0)
            launch_with<wide_weights_kernel<T>>(tile_shared_bytes, blocks_for_tiles(tiles), block_threads, group, maps,
                                                members, has_bias);
    } else {
        (void)group;
    }
    return members;
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

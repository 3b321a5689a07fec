// dW = Aᵀ·δ in bfloat16, on Hopper, a tile of W at a time, and the optimizer on it: what backward_weights.cu does, by
// bulk copies and warpgroups' products.
//
// Invariant: as there, rows are cut into stretches of `gradient_stretch`, whose sums are added in order, and no block
// writes what another does: a warpgroup has 64 rows of W, which are whole tiles of the transpose.
#pragma once

#include <limits>

#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/hopper/tiles.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

static_assert(terms_in_part == gradient_stretch, "a stretch is one sum");

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

__device__ __forceinline__ void fill_stages(const TileRing& ring, const WeightMaps& maps, std::int32_t steps,
                                            std::int64_t first_panel, Tiles tiles) {
    for (Place place; tiles.exists(); tiles.advance()) {
        const std::int32_t row = static_cast<std::int32_t>(tiles.first_row());
        const std::int32_t column = static_cast<std::int32_t>(first_panel * panel_width + tiles.first_column());
        for (std::int32_t step = 0; step < steps; ++step, ring.advance(place)) {
            const Shared stage = ring.begin_filling(place);
            for (int box = 0; box < 2; ++box) {
                const Shared at = stage + static_cast<std::uint32_t>(box) * box_bytes;
                copy_box(at, maps.a, row + box * box_width, step * stage_terms, ring.full(place));
                copy_box(at + 2 * box_bytes, maps.delta, column + box * box_width, step * stage_terms,
                         ring.full(place));
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

// Eight neighbours. Leaves new values where the sums were, for `write_transposed`.
__device__ __forceinline__ void finish_stretch(const WideWeightTile& tile, int row, int column, Shared at) {
    const BackwardWeightsArgs<bfloat16>& args = tile.args;
    Stretch<float, 8> x = {};
    if (tile.has(row, column)) {
        load_stretch(at, x);
        // What A has of NaN and infinity makes NaN of a zero beside it.
#pragma unroll
        for (int c = 0; c < 8; ++c)
            if (tile.column(column) + c >= args.columns) x.at[c] = 0;
        const std::int64_t place = tile.packed(row, column, args.inner);
        if (args.gradient) {
            write(x, args.gradient + place);
        } else {
            visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
                x = update_stretch<decltype(rule)>(args.weight, place, x, *args.weight_hyper);
            });
            write(x, args.operands.panels + tile.packed(row, column, operand_rows<bfloat16>(args.inner)));
        }
    }
    store(at, x.at[0], x.at[1], x.at[2], x.at[3]);
    store(at + 16, x.at[4], x.at[5], x.at[6], x.at[7]);
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
        for (int i = 0; i < 8; ++i)
            x.at[i] = load(left + static_cast<std::uint32_t>(first + row + i) * pitch +
                           static_cast<std::uint32_t>(column) * 4);
        write(x, args.operands.transposed + begin + row);
    }
}

__device__ __forceinline__ void finish_tiles(const TileShared& shared, const BackwardWeightsArgs<bfloat16>& args,
                                             std::int32_t steps, Tiles tiles) {
    const std::uint32_t meeting = static_cast<std::uint32_t>(group());
    const WeightOperands operands{static_cast<Shared>(group() - 1) * box_bytes};
    for (Place place; tiles.exists(); tiles.advance()) {
        const WideWeightTile tile{args, tiles.first_row(), args.first_panel + tiles.first_column() / panel_width};
        float total[64] = {};
        if (args.gradient && args.accumulate) take_gradient(tile, total);
        add_stages(shared.ring(), place, steps, operands, total);
        visit_rows(total, shared.left, [&](int row, int column, Shared at) { finish_stretch(tile, row, column, at); });
        if (args.gradient) continue;
        meet_group(meeting);
        write_transposed(tile, shared.left);
        meet_group(meeting);  // before the next tile's
    }
}

template <class T>
__global__ void __launch_bounds__(block_threads, 1)
    wide_weights_kernel(const __grid_constant__ BackwardWeightsArgs<T> args, const __grid_constant__ WeightMaps maps) {
#if defined(RC_HOPPER)
    if (!args.gradient && !permits(args.permission)) return;
    const TileShared shared;
    if (threadIdx.x == 0) shared.ring().make(using_groups * warps_of_group);
    __syncthreads();
    const Tiles tiles(args.inner, (args.last_panel - args.first_panel) * panel_width);
    const std::int32_t steps = static_cast<std::int32_t>((args.rows + stage_terms - 1) / stage_terms);
    if (group() == 0) {
        give_registers<filling_registers>();
        if (threadIdx.x < 32 && elect_one()) fill_stages(shared.ring(), maps, steps, args.first_panel, tiles);
    } else {
        take_registers<using_registers>();
        finish_tiles(shared, args, steps, tiles);
    }
#endif
}

// The weight's part, not the bias's. False where it is not for this path; then nothing was launched.
template <class T>
bool launch_weights(const BackwardWeightsArgs<T>& args) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - tile_rows;
        if (current_path() == Path::simple || args.rows == 0 || args.inner == 0) return false;
        if (args.rows > most || args.inner > most || args.columns > most) return false;
        if (!on_boundaries(args.gradient, args.weight.value, args.weight.state[0], args.weight.state[1],
                           args.operands.panels, args.operands.transposed))
            return false;
        WeightMaps maps;
        if (!maps.encode_rows(args)) return false;
        const dim3 grid = Tiles::grid(args.inner, (args.last_panel - args.first_panel) * panel_width);
        launch_with<wide_weights_kernel<T>>(tile_shared_bytes, grid, block_threads, args, maps);
        return true;
    } else {
        (void)args;
        return false;
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// dW = Aᵀ·δ and db = Σ δ in bfloat16, on Hopper, a tile of W at a time, and the optimizer on it: what
// backward_weights.cu does, by bulk copies and warpgroups' products. The columns of δ are summed where they lie for the
// products, by warps that have nothing else to do.
//
// Invariant: as there, rows are cut into stretches of `gradient_stretch`, whose sums are added in order, and no block
// writes what another does: a warpgroup has 64 rows of W, which are whole tiles of the transpose.
#pragma once

#include <limits>

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/gradient_parts.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/hopper/tiles.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int summing_registers = 72, multiplying_registers = 216;
static_assert(summing_registers + using_groups * multiplying_registers <= registers_of_groups(1 + using_groups),
              "a block's registers");
constexpr int summing_warps = tile_columns / box_width;

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

__device__ __forceinline__ void fill_stages(const TileRing& ring, const WeightMaps& maps,
                                            const GradientParts<float>& parts, Tiles tiles) {
    for (Place place; tiles.exists(); tiles.advance()) {
        const std::int32_t row = static_cast<std::int32_t>(tiles.first_row());
        const std::int32_t column = static_cast<std::int32_t>(parts.first_panel * panel_width + tiles.first_column());
        const std::int32_t end = static_cast<std::int32_t>(parts.last_row(tiles.part()));
        for (std::int32_t term = static_cast<std::int32_t>(parts.first_row(tiles.part())); term < end;
             term += stage_terms, ring.advance(place)) {
            const Shared stage = ring.begin_filling(place);
            for (int box = 0; box < 2; ++box) {
                const Shared at = stage + static_cast<std::uint32_t>(box) * box_bytes;
                copy_box(at, maps.a, row + box * box_width, term, ring.full(place));
                copy_box(at + 2 * box_bytes, maps.delta, column + box * box_width, term, ring.full(place));
            }
        }
    }
}

// Sums of a tile's columns, by a warp for each box of δ: a lane has two neighbours, and adds rows in the order in which
// fold_rows has it. Of the tiles of the first rows of W alone; the others' stages pass by.
class ColumnSummer {
public:
    __device__ __forceinline__ ColumnSummer(const TileRing& ring, int box) : ring_(ring), box_(box) {}

    __device__ __forceinline__ void sum_tiles(const GradientParts<float>& parts, Tiles tiles) {
        for (; tiles.exists(); tiles.advance()) {
            const std::int64_t panel = parts.first_panel + tiles.first_column() / panel_width + box_;
            const bool is_mine = tiles.first_row() == 0 && panel < parts.first_panel + parts.panels;
            const std::int64_t end = parts.last_row(tiles.part());
            float total[2] = {};
            for (std::int64_t first = parts.first_row(tiles.part()); first < end; first += gradient_stretch)
                add_stretch(end - first < gradient_stretch ? static_cast<int>(end - first) : int{gradient_stretch},
                            is_mine, total);
            if (is_mine) write(Stretch<float, 2>{{total[0], total[1]}}, parts.bias_at(tiles.part(), panel, 2 * lane()));
        }
    }

private:
    static constexpr int together = 8;  // rows of a lane of fold_rows that are read before the first is added

    __device__ __forceinline__ void add_stretch(int rows, bool is_mine, float (&total)[2]) {
        float all[2] = {};
        if (rows == gradient_stretch)
            add_whole(is_mine, all);
        else
            add_rest(rows, is_mine, all);
        for (int c = 0; c < 2; ++c) total[c] = total[c] + all[c];
    }
    // Two lanes of fold_rows lie in a stage, and are added side by side: the warp's time is that of its instructions,
    // and it must not be longer than the products'.
    __device__ __forceinline__ void add_whole(bool is_mine, float (&all)[2]) {
        constexpr int share = gradient_stretch / column_lanes, lanes = stage_terms / share;
#pragma unroll 1
        for (int begin = 0; begin < gradient_stretch; begin += stage_terms) {
            const Shared box = begin_box();
            float sum[lanes][2] = {};
            if (is_mine)
#pragma unroll 1
                for (int row = 0; row < share; row += together) {
                    std::uint32_t words[lanes][together];
#pragma unroll
                    for (int l = 0; l < lanes; ++l)
#pragma unroll
                        for (int r = 0; r < together; ++r)
                            words[l][r] = load_word(place_of_pair(box, l * share + row + r));
#pragma unroll
                    for (int r = 0; r < together; ++r)
#pragma unroll
                        for (int l = 0; l < lanes; ++l) add_pair(words[l][r], sum[l]);
                }
            end_box();
#pragma unroll
            for (int l = 0; l < lanes; ++l)
                for (int c = 0; c < 2; ++c) all[c] = all[c] + sum[l][c];
        }
    }
    // The batch's last rows, fewer than a stretch.
    __device__ __forceinline__ void add_rest(int rows, bool is_mine, float (&all)[2]) {
        const int share = (rows + column_lanes - 1) / column_lanes;
        float sum[2] = {};
        int left = share;
#pragma unroll 1
        for (int begin = 0; begin < rows; begin += stage_terms) {
            const Shared box = begin_box();
#pragma unroll 1
            for (int row = 0; is_mine && row < stage_terms && begin + row < rows; ++row) {
                add_pair(load_word(place_of_pair(box, row)), sum);
                if (--left > 0) continue;
                for (int c = 0; c < 2; ++c) all[c] = all[c] + sum[c], sum[c] = 0;
                left = share;
            }
            end_box();
        }
        for (int c = 0; c < 2; ++c) all[c] = all[c] + sum[c];
    }
    static __device__ __forceinline__ void add_pair(std::uint32_t word, float (&sum)[2]) {
        sum[0] = sum[0] + to_float(bfloat16{static_cast<std::uint16_t>(word)});
        sum[1] = sum[1] + to_float(bfloat16{static_cast<std::uint16_t>(word >> 16)});
    }
    __device__ __forceinline__ Shared begin_box() const {
        return ring_.begin_using(place_) + static_cast<std::uint32_t>(2 + box_) * box_bytes;
    }
    __device__ __forceinline__ void end_box() {
        __syncwarp();
        if (lane() == 0) ring_.let_go(place_);
        ring_.advance(place_);
    }
    // As copies swizzle: 16 bytes, of eight numbers, change places within eight rows.
    static __device__ __forceinline__ Shared place_of_pair(Shared box, int row) {
        return box + static_cast<std::uint32_t>(row) * box_row +
               static_cast<std::uint32_t>((lane() / 4 ^ row) & 7) * 16 + static_cast<std::uint32_t>(lane() % 4) * 4;
    }

    const TileRing ring_;
    const int box_;
    Place place_;
};

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

__device__ __forceinline__ void finish_tiles(const TileShared& shared, const BackwardWeightsArgs<bfloat16>& args,
                                             const GradientParts<float>& parts, Tiles tiles) {
    const std::uint32_t meeting = static_cast<std::uint32_t>(group());
    const WeightOperands operands{static_cast<Shared>(group() - 1) * box_bytes};
    for (Place place; tiles.exists(); tiles.advance()) {
        const WideWeightTile tile{args, tiles.first_row(), args.first_panel + tiles.first_column() / panel_width};
        const std::int64_t rows = parts.last_row(tiles.part()) - parts.first_row(tiles.part());
        float total[64] = {};
        if (args.gradient && args.accumulate && !parts.is_divided()) take_gradient(tile, total);
        add_stages<gradient_stretch>(shared.ring(), place, (rows + stage_terms - 1) / stage_terms, operands, total);
        if (parts.is_divided()) {
            keep_part(tile, parts, tiles.part(), total);
            continue;
        }
        leave_rows(total, shared.left);
        __syncwarp();
        visit_rows(shared.left, [&](int row, int column, Shared at) { finish_stretch(tile, row, column, at); });
        __syncwarp();  // before the next tile's
        if (args.gradient) continue;
        meet_group(meeting);
        write_transposed(tile, shared.left);
        meet_group(meeting);  // before the next tile's
    }
}

template <class T>
__global__ void __launch_bounds__(block_threads, 1)
    wide_weights_kernel(const __grid_constant__ BackwardWeightsArgs<T> args,
                        const __grid_constant__ GradientParts<Compute<T>> parts,
                        const __grid_constant__ WeightMaps maps) {
#if defined(RC_HOPPER)
    if (!args.gradient && !permits(args.permission)) return;
    const TileShared shared;
    if (threadIdx.x == 0) shared.ring().make(using_groups * warps_of_group + (args.has_bias ? summing_warps : 0));
    __syncthreads();
    const Tiles tiles(args.inner, parts.panels * panel_width, parts.count);
    if (group() == 0) {
        give_registers<summing_registers>();
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (warp == 0) {
            if (elect_one()) fill_stages(shared.ring(), maps, parts, tiles);
        } else if (args.has_bias && warp <= summing_warps) {
            ColumnSummer(shared.ring(), warp - 1).sum_tiles(parts, tiles);
        }
    } else {
        take_registers<multiplying_registers>();
        finish_tiles(shared, args, parts, tiles);
    }
#endif
}

// Sums of W's gradient, and parts of the bias's. False where it is not for this path; then nothing was launched.
template <class T>
bool launch_weights(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - tile_rows;
        if (current_path() == Path::simple || args.rows == 0 || args.inner == 0) return false;
        if (args.rows > most || args.inner > most || args.columns > most) return false;
        if (!on_boundaries(args.gradient, args.weight.value, args.weight.state[0], args.weight.state[1],
                           args.operands.panels, args.operands.transposed))
            return false;
        WeightMaps maps;
        if (!maps.encode_rows(args)) return false;
        const dim3 grid = Tiles::grid(args.inner, parts.panels * panel_width, parts.count);
        launch_with<wide_weights_kernel<T>>(tile_shared_bytes, grid, block_threads, args, parts, maps);
        return true;
    } else {
        (void)args, (void)parts;
        return false;
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// A batch's norm in a chain: column sums of a block's rows, from its boxes, then of all blocks', and what they become.
//
// Invariant: a warp's sums are of its own 16 rows. A block puts its warps' together, in order, and leaves what they
// give for others to read; once all have met, each block adds all of theirs in order. So every block has the same
// coefficients, and the first one alone writes them where other launches read them.
#pragma once

#include "kernels/cuda/hopper/chain_epilogue.cuh"
#include "kernels/cuda/hopper/meeting.cuh"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int warp_rows = group_rows / warps_of_group;
static_assert(sizeof(ChainColumn) == column_bytes, "what there is room for");

// The warps' sums of a block that has so many rows, as PartialSums has those of chunks.
struct WarpSums {
    struct Column {
        Shared at;
        __device__ __forceinline__ float operator[](std::int64_t j) const {
            return load(at + static_cast<std::uint32_t>(j) * sums_bytes);
        }
    };
    Shared at;
    std::uint32_t width;
    std::int64_t rows;

    __device__ __forceinline__ Shared of_warp(std::int64_t warp) const {
        return at + static_cast<std::uint32_t>(warp) * width * sums_bytes;
    }
    __device__ __forceinline__ Column first(std::int64_t warp) const { return {of_warp(warp)}; }
    __device__ __forceinline__ Column second(std::int64_t warp) const { return {of_warp(warp) + sums_bytes / 2}; }
    __device__ __forceinline__ std::int64_t chunks() const { return (rows + warp_rows - 1) / warp_rows; }
    __device__ __forceinline__ std::int64_t rows_of(std::int64_t warp) const {
        const std::int64_t left = rows - warp * warp_rows;
        return left < warp_rows ? left : warp_rows;
    }
};

struct NoNorms {};

template <class Norms>
class ChainNormPass {
public:
    __device__ __forceinline__ ChainNormPass(const ChainShared&, const Norms&, const ChainOperation&, const ChainTile&,
                                             int, int) {}
    __device__ __forceinline__ void put_together() const {}
    __device__ __forceinline__ static bool undoes() { return false; }
    __device__ __forceinline__ static std::uint32_t undo(int) { return 0; }
    __device__ __forceinline__ static NoBranch branch() { return {}; }
};

// Of one operation, which may have none.
template <>
class ChainNormPass<ChainNorms> {
public:
    __device__ __forceinline__ ChainNormPass(const ChainShared& shared, const ChainNorms& norms,
                                             const ChainOperation& operation, const ChainTile& tile, int row_group,
                                             int column_group)
        : shared_(shared),
          norms_(norms),
          op_(operation),
          tile_(tile),
          row_group_(row_group),
          column_group_(column_group) {}

    __device__ __forceinline__ bool undoes() const { return op_.kind == ChainOperation::Kind::undo_norm; }
    __device__ __forceinline__ ChainBranch branch() const { return {op_.norm >= 0 ? op_.normed_box : -1, columns()}; }

    // By all warpgroups that multiply.
    __device__ __forceinline__ void put_together() const {
        if (op_.norm < 0) return;
#pragma unroll 1
        for (int panel = column_group_; panel * panel_width < op_.columns; panel += program().column_groups())
            undoes() ? sum_gradients(panel) : sum_moments(panel);
        meet();
        const int own = static_cast<int>(threadIdx.x) - group_threads;  // of the columns: there are more threads
        if (own < op_.columns) leave_sums(own);
        meet();
        if (own == 0) meet_blocks(norms_.meeting);
        meet();
        if (own < static_cast<int>(width())) finish(own);
        meet();
    }

    // A panel of δ becomes one of what goes back through the norm. The largest magnitudes, as an epilogue has them.
    __device__ __forceinline__ std::uint32_t undo(int panel) const {
        const BoxRows rows = rows_of(panel);
        BoxWords delta, z;
        rows.load(tile_.box(op_.normed_box + panel), delta);
        rows.load(tile_.box(op_.first_box + panel), z);
        std::uint32_t most = 0;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            const int j = first_column(panel) + 2 * pair;
            const ChainColumn one(columns(), j), next(columns(), j + 1);
#pragma unroll
            for (int i = 0; i < words_of_thread; ++i) {
                const Stretch<float, 2> d = numbers_of(delta[i].at[pair]), x = numbers_of(z[i].at[pair]);
                z[i].at[pair] = pair_of(slope(one)(d.at[0], x.at[0]), slope(next)(d.at[1], x.at[1]));
                if (has(i)) most = larger_of_each(most, z[i].at[pair] & 0x7fff7fff);
            }
        }
        rows.store(tile_.box(op_.first_box + panel), z);
        fence_stores();
        if (op_.out.data) rows.write(z, op_.out);
        return most;
    }

private:
    using Eight = Stretch<float, 8>;

    __device__ __forceinline__ const ChainProgram& program() const { return shared_.program; }
    // Of all norms of a chain in the same places: one that is a norm ahead writes over nothing that another reads.
    __device__ __forceinline__ Shared columns() const { return shared_.norm_room(); }
    __device__ __forceinline__ std::uint32_t width() const { return program().norm_width; }
    __device__ __forceinline__ Shared sums() const { return shared_.norm_room() + width() * column_bytes; }
    __device__ __forceinline__ void meet() const { meet_groups(1 + program().row_groups, chain_groups); }

    __device__ __forceinline__ BoxRows rows_of(int panel) const {
        return {tile_.first_row, tile_.rows, panel * box_width, op_.columns};
    }
    // As BoxRows has them: a thread's eight columns, and its rows, every fourth of the warp's.
    __device__ __forceinline__ int first_column(int panel) const {
        return panel * box_width + 8 * static_cast<int>(thread_.number % 8);
    }
    __device__ __forceinline__ int rows_of_warp() const {
        const int left = tile_.rows - thread_.first_row();
        return left < 0 ? 0 : left < warp_rows ? left : warp_rows;
    }
    __device__ __forceinline__ bool has(int i) const {
        return static_cast<int>(thread_.number % 32 / 8) + 4 * i < rows_of_warp();
    }
    static __device__ __forceinline__ NormSlope<float> slope(const ChainColumn& column) {
        return {column.at[0], column.at[1], column.at[2], column.at[3]};
    }

    // Over the warp's rows, in all lanes that have these columns.
    static __device__ __forceinline__ void add_lanes(Eight& x) {
#pragma unroll
        for (int c = 0; c < 8; ++c)
#pragma unroll
            for (int across = 8; across < 32; across *= 2)
                x.at[c] = x.at[c] + __shfl_xor_sync(0xffffffffu, x.at[c], across);
    }
    __device__ __forceinline__ void leave_of_warp(int panel, const Eight& first, const Eight& second) const {
        if (lane() >= 8) return;
        const std::uint32_t warp = static_cast<std::uint32_t>(row_group_ * warps_of_group) + thread_.number / 32;
        const Shared at = sums() + (warp * width() + static_cast<std::uint32_t>(first_column(panel))) * sums_bytes;
#pragma unroll
        for (int c = 0; c < 8; c += 2)
            store(at + static_cast<std::uint32_t>(c) * sums_bytes, first.at[c], second.at[c], first.at[c + 1],
                  second.at[c + 1]);
    }
    // Two passes: squares are of deviations, so a large mean costs no digits.
    __device__ __forceinline__ void sum_moments(int panel) const {
        BoxWords z;
        rows_of(panel).load(tile_.box(op_.normed_box + panel), z);
        const float rows = static_cast<float>(rows_of_warp() > 0 ? rows_of_warp() : 1);
        Eight mean = {}, squares = {};
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i)
            if (has(i)) each(mean, Plus(), numbers_of(z[i]));
        add_lanes(mean);
        each(mean, [rows](float sum) { return sum / rows; });
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i)
            if (has(i))
                each(
                    squares, [](float sum, float x, float mean) { return multiply_add(x - mean, x - mean, sum); },
                    numbers_of(z[i]), mean);
        add_lanes(squares);
        leave_of_warp(panel, mean, squares);
    }
    // Σ δ and Σ δ·x̂.
    __device__ __forceinline__ void sum_gradients(int panel) const {
        BoxWords delta, z;
        rows_of(panel).load(tile_.box(op_.normed_box + panel), delta);
        rows_of(panel).load(tile_.box(op_.first_box + panel), z);
        const ChainNorm& norm = norms_.all[op_.norm];
        Eight mean = {}, inverse = {}, sum = {}, sum_xhat = {};
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            const int j = first_column(panel) + c;
            if (j < op_.columns) mean.at[c] = norm.mean[j], inverse.at[c] = norm.inverse_deviation[j];
        }
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i) {
            if (!has(i)) continue;
            const Eight d = numbers_of(delta[i]);
            each(sum, Plus(), d);
            each(
                sum_xhat,
                [](float so_far, float d, float z, float mean, float inverse) {
                    return multiply_add(d, (z - mean) * inverse, so_far);
                },
                d, numbers_of(z[i]), mean, inverse);
        }
        add_lanes(sum);
        add_lanes(sum_xhat);
        leave_of_warp(panel, sum, sum_xhat);
    }

    __device__ __forceinline__ PartialSums<bfloat16> sums_of_blocks() const {
        return norms_.sums_of(program(), op_.norm, op_.columns);
    }
    // Column j's of the block.
    __device__ __forceinline__ void leave_sums(int j) const {
        const PartialSums<bfloat16> blocks = sums_of_blocks();
        const std::int64_t block = blockIdx.x;
        const WarpSums warps{sums(), width(), blocks.rows_of(block)};
        double first, second;
        if (undoes()) {
            const ColumnSums all = sums_of_all(warps, j);
            first = all.first, second = all.second;
        } else {
            const ColumnMoments all = moments_of_all(warps, j);
            first = all.mean, second = all.squares;
        }
        blocks.first(block)[j] = static_cast<float>(first);
        blocks.second(block)[j] = static_cast<float>(second);
    }
    // Column j's of the batch, and what they become; of a column that is not there, zeros.
    __device__ __forceinline__ void finish(int j) const {
        ChainColumn made;
        if (j < op_.columns) undoes() ? finish_gradients(j, made) : finish_moments(j, made);
        made.store_at(columns(), j);
    }
    __device__ __forceinline__ void finish_moments(int j, ChainColumn& made) const {
        const CombineMomentsArgs<bfloat16>& args = norms_.all[op_.norm].moments;
        const NormColumn<bfloat16> before = norm_column(args, j);
        const ColumnMoments all = moments_of_all(sums_of_blocks(), j);
        float inverse;
        set_batch_coefficients(args, before, all, {&made.at[0], &inverse, &made.at[1], &made.at[2]}, 0);
        if (blockIdx.x != 0) return;
        set_batch_coefficients(args, before, all, args.out, j);
        carry_statistics(args, before, all, j);
    }
    __device__ __forceinline__ void finish_gradients(int j, ChainColumn& made) const {
        const ChainNorm& norm = norms_.all[op_.norm];
        const ColumnSums all = sums_of_all(sums_of_blocks(), j);
        const NormSlope<float> slope =
            norm_slope(norm.mean[j], norm.inverse_deviation[j], norm.scale[j], mean_of_sum(norm.sums, all.first),
                       mean_of_sum(norm.sums, all.second));
        made.at[0] = slope.mean, made.at[1] = slope.scale, made.at[2] = slope.slope, made.at[3] = slope.shift;
        if (blockIdx.x == 0) finish_norm_sums(norm.sums, j, all.first, all.second);
    }

    const ChainShared& shared_;
    const ChainNorms& norms_;
    const ChainOperation& op_;
    const ChainTile& tile_;
    const int row_group_, column_group_;
    GroupThread thread_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

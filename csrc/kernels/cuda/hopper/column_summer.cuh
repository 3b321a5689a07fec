// db = Σ δ, in passing: of the stages that are filled for the products of dW, whose warps leave this to two others.
//
// Invariant: rows are added in the order in which bias_kernel has them (column_sums.cuh), so that the bits are the
// same.
#pragma once

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/hopper/weight_tiles.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int summing_warps = tile_columns / box_width;

// Sums of a tile's columns, by a warp for each box of δ: a lane has two neighbours, and adds rows in the order in which
// fold_rows has it. All tiles down W have the same columns: each has a share of their stretches, and what is another's
// passes by.
class ColumnSummer {
public:
    __device__ __forceinline__ ColumnSummer(const TileRing& ring, int box) : ring_(ring), box_(box) {}

    template <class T>
    __device__ __forceinline__ void sum_tiles(WeightTiles<T> tiles) {
        for (; tiles.exists(); tiles.advance()) {
            const GradientParts<float>& parts = tiles.parts();
            const std::int64_t panel = parts.first_panel + tiles.first_column() / panel_width + box_;
            const int part = tiles.part(), own = tiles.first_row() / tile_rows;
            const bool has_share =
                tiles.call().has_bias && own < parts.bias_shares && panel < parts.first_panel + parts.panels;
            const std::int64_t end = parts.last_row(part);
            std::int64_t next = has_share ? parts.first_row(part, own) : end;
            float total[2] = {};
            for (std::int64_t first = parts.first_row(part); first < end; first += gradient_stretch) {
                const int rows = end - first < gradient_stretch ? static_cast<int>(end - first) : int{gradient_stretch};
                if (first < next) {
                    pass_by(rows);
                } else {
                    add_stretch(rows, total);
                    next += parts.share_step();
                }
            }
            if (has_share) write(Stretch<float, 2>{{total[0], total[1]}}, parts.bias_at(part, own, panel, 2 * lane()));
        }
    }

private:
    static constexpr int share = gradient_stretch / column_lanes;  // rows of a lane of fold_rows
    static constexpr int lanes = stage_terms / share;              // of fold_rows, in a stage
    static constexpr int together = 8;                             // rows of each that are asked for at a time

    struct Batch {
        std::uint32_t at[lanes][together];
    };
    static __device__ __forceinline__ void load_batch(Shared box, int row, Batch& words) {
#pragma unroll
        for (int l = 0; l < lanes; ++l)
#pragma unroll
            for (int r = 0; r < together; ++r) words.at[l][r] = load_word(place_of_pair(box, l * share + row + r));
    }

    __device__ __forceinline__ void pass_by(int rows) {
#pragma unroll 1
        for (int begin = 0; begin < rows; begin += stage_terms) begin_box(), end_box();
    }
    __device__ __forceinline__ void add_stretch(int rows, float (&total)[2]) {
        float all[2] = {};
        if (rows == gradient_stretch)
            add_whole(all);
        else
            add_rest(rows, all);
        for (int c = 0; c < 2; ++c) total[c] = total[c] + all[c];
    }
    // Two lanes of fold_rows lie in a stage, and are added side by side: the warp's time is that of its instructions,
    // and it must not be longer than the products'. So words are asked for while those before them are added: shared
    // memory, which products read meanwhile, answers late.
    __device__ __forceinline__ void add_whole(float (&all)[2]) {
#pragma unroll 1
        for (int begin = 0; begin < gradient_stretch; begin += stage_terms) {
            const Shared box = begin_box();
            float sum[lanes][2] = {};
            Batch words[2];
            load_batch(box, 0, words[0]);
#pragma unroll
            for (int row = 0; row < share; row += together) {
                const int now = row / together % 2;
                if (row + together < share) load_batch(box, row + together, words[1 - now]);
#pragma unroll
                for (int r = 0; r < together; ++r)
#pragma unroll
                    for (int l = 0; l < lanes; ++l) add_pair(words[now].at[l][r], sum[l]);
            }
            end_loads();
#pragma unroll
            for (int l = 0; l < lanes; ++l)
                for (int c = 0; c < 2; ++c) all[c] = all[c] + sum[l][c];
        }
    }
    // The batch's last rows, fewer than a stretch.
    __device__ __forceinline__ void add_rest(int rows, float (&all)[2]) {
        const int of_lane = (rows + column_lanes - 1) / column_lanes;
        float sum[2] = {};
        int left = of_lane;
#pragma unroll 1
        for (int begin = 0; begin < rows; begin += stage_terms) {
            const Shared box = begin_box();
#pragma unroll 1
            for (int row = 0; row < stage_terms && begin + row < rows; ++row) {
                add_pair(load_word(place_of_pair(box, row)), sum);
                if (--left > 0) continue;
                for (int c = 0; c < 2; ++c) all[c] = all[c] + sum[c], sum[c] = 0;
                left = of_lane;
            }
            end_loads();
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
    __device__ __forceinline__ void end_loads() {
        fence_loads();
        end_box();
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

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// dW = Aᵀ·δ in bfloat16, on GPUs of compute capability 8.0 and later: what backward_weights.cu does, by copies that are
// on their way while others are multiplied, and by tiles twice or four times as large.
//
// Invariant: no block writes what another does: a tile is whole tiles of update.cuh.
#pragma once

#include <type_traits>

#include "kernels/cuda/ampere/tile.cuh"
#include "kernels/cuda/finish_gradient.cuh"
#include "kernels/cuda/path.h"

namespace resnetcore {
namespace cuda {
namespace ampere {

// A stage's terms are the batch's rows: 128 columns of A, and those of the tile's panels of δ.
template <int panels>
class RowStages {
public:
    __device__ __forceinline__ RowStages(const BackwardWeightsArgs<bfloat16>& args, std::int64_t first_row,
                                         std::int64_t first_panel, std::int64_t begin, std::int64_t end)
        : args_(args), a_column_(first_row), delta_column_(first_panel * panel_width), next_(begin), end_(end) {}
    __device__ __forceinline__ int count() const {
        return static_cast<int>((end_ - next_ + stage_terms - 1) / stage_terms);
    }
    __device__ __forceinline__ void advance() { next_ += stage_terms; }
    __device__ __forceinline__ void copy_to(Shared stage) const {
#pragma unroll
        for (int box = 0; box < tile_rows / box_width; ++box)
            copy_of_box(stage, box, args_.a, a_column_ + box * box_width, args_.inner);
#pragma unroll
        for (int panel = 0; panel < panels; ++panel)
            copy_of_box(stage + a_bytes, panel, args_.delta, delta_column_ + panel * box_width, args_.columns);
    }

private:
    static_assert(stage_terms * (box_width / place_numbers) == threads, "a thread copies a place of each box");

    __device__ __forceinline__ void copy_of_box(Shared boxes, int box, const Rows<bfloat16>& from, std::int64_t column,
                                                std::int64_t columns) const {
        const int term = static_cast<int>(threadIdx.x) / 8, place = static_cast<int>(threadIdx.x) % 8;
        const std::int64_t i = next_ + term, j = column + place * place_numbers, left = (columns - j) * 2;
        const bool there = i < end_ && left > 0;
        copy_place(boxes + static_cast<std::uint32_t>(box) * box_bytes + place_in_box(term, place),
                   there ? from.data + i * from.stride + j : from.data,
                   !there               ? 0
                   : left < place_bytes ? static_cast<int>(left)
                                        : place_bytes);
    }

    const BackwardWeightsArgs<bfloat16>& args_;
    const std::int64_t a_column_, delta_column_;
    std::int64_t next_;
    const std::int64_t end_;
};

// One of the tiles of update.cuh that a tile is of, and the place of its sums.
template <int panels>
struct SumsOfTile {
    SharedSums<panels> all;
    int first_row, first_column;

    __device__ __forceinline__ float get(int row, int column) const {
        return load(all.place(first_row + row, first_column + column));
    }
    __device__ __forceinline__ void set(int row, int column, float x) const {
        store(all.place(first_row + row, first_column + column), x);
    }
};

template <int panels>
__global__ void __launch_bounds__(threads, 3 - panels)
    copied_weights_kernel(const __grid_constant__ BackwardWeightsArgs<bfloat16> args,
                          const __grid_constant__ GradientParts<float> parts) {
    if (!args.gradient && !permits(args.permission)) return;
    const std::int64_t first_row = std::int64_t{blockIdx.x} * tile_rows,
                       first_panel = args.first_panel + std::int64_t{blockIdx.y} * panels;
    const int part = static_cast<int>(blockIdx.z);
    const auto tile_at = [&](int row, int column) {
        return WeightTile<bfloat16>{args.inner, args.columns, first_panel + column / panel_width,
                                    first_row + row / tile_size * tile_size};
    };
    const auto has_panel = [&](int column) { return first_panel + column / panel_width < args.last_panel; };
    float total[WarpTile<panels>::count] = {};
    if (args.gradient && args.accumulate && !parts.is_divided())
        WarpTile<panels>::for_pairs([&](int i, int row, int column) {
            const WeightTile<bfloat16> tile = tile_at(row, column);
            if (!tile.has_row(row % tile_size) || !has_panel(column)) return;
            const auto kept = read<2>(args.gradient + tile.at(row % tile_size, column % panel_width));
            total[i] = kept.at[0], total[i + 1] = kept.at[1];
        });
    const Shared memory = shared_memory();
    add_stages<panels, false, MatrixUnit<bfloat16>::longest_gradient>(
        RowStages<panels>(args, first_row, first_panel, parts.first_row(part), parts.last_row(part)), memory, total);
    // What A has of NaN and infinity makes NaN of a zero beside it.
    WarpTile<panels>::for_pairs([&](int i, int row, int column) {
        const WeightTile<bfloat16> tile = tile_at(row, column);
#pragma unroll
        for (int c = 0; c < 2; ++c)
            if (!tile.has_column(column % panel_width + c)) total[i + c] = 0;
    });
    const SharedSums<panels> left{memory};
    left.leave(total);
#pragma unroll 1
    for (int column = 0; column < panels * panel_width && has_panel(column); column += panel_width)
#pragma unroll 1
        for (int row = 0; row < tile_rows; row += tile_size)
            finish_tile(args, parts, part, tile_at(row, column), SumsOfTile<panels>{left, row, column});
}

template <int panels>
void launch_tiles(const BackwardWeightsArgs<bfloat16>& args, const GradientParts<float>& parts) {
    const dim3 grid(static_cast<unsigned>((args.inner + tile_rows - 1) / tile_rows),
                    static_cast<unsigned>((parts.panels + panels - 1) / panels), static_cast<unsigned>(parts.count));
    launch_with<copied_weights_kernel<panels>, shared_bytes<panels>>(grid, threads, args, parts);
}

// Of a weight that has tiles. False where it is not for this path; then nothing was launched.
template <class T>
bool launch_weights(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        if (current_path() != Path::ampere || !on_boundaries(args.a, args.delta, args.gradient)) return false;
        if (parts.panels >= 2 && fills_gpu(args.inner, parts.panels * parts.count))
            launch_tiles<2>(args, parts);
        else
            launch_tiles<1>(args, parts);
        return true;
    } else {
        (void)args, (void)parts;
        return false;
    }
}

}  // namespace ampere
}  // namespace cuda
}  // namespace resnetcore

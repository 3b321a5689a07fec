// residual_backward_weights: dW = Aᵀ·δ, a tile of W at a time, and the optimizer on it while its sums are at hand;
// where the batch is divided, after another kernel has added its parts. Several weights together on Hopper's path: all
// tiles of all of them are there at once, so that the batch need not be divided, or in fewer parts.
//
// Invariant: sums are cut as everywhere (product.cuh), whose parts are added in order of the rows, and those of the
// bias into stretches of `gradient_stretch`, of which each part's shares are summed apart; a gradient that is
// accumulated is where that order begins, or, where the batch is divided, what its parts are added to.
#include <algorithm>

#include "kernels/cuda/ampere/weights.cuh"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/finish_gradient.cuh"
#include "kernels/cuda/hopper/weights.cuh"

namespace resnetcore {
namespace cuda {
namespace {

// The sum's terms are the batch's rows: A is read across them.
template <class T>
class RowSteps {
public:
    __device__ __forceinline__ RowSteps(const BackwardWeightsArgs<T>& args, const WeightTile<T>& tile,
                                        std::int64_t first, std::int64_t end)
        : args_(args), tile_(tile), first_(first), end_(end) {}
    __device__ __forceinline__ bool exists() const { return first_ < end_; }
    __device__ __forceinline__ void advance() { first_ += Multiply<T>::depth; }
    __device__ __forceinline__ T a(int row, int term) const {
        const std::int64_t i = first_ + term;
        return i < end_ && tile_.has_row(row) ? args_.a.data[i * args_.a.stride + tile_.first_row + row] : T{};
    }
    __device__ __forceinline__ T b(int term, int column) const {
        const std::int64_t i = first_ + term, j = tile_.panel * panel_width + column;
        return i < end_ && j < args_.columns ? args_.delta.data[i * args_.delta.stride + j] : T{};
    }

private:
    const BackwardWeightsArgs<T>& args_;
    WeightTile<T> tile_;
    std::int64_t first_, end_;
};

template <class T>
__global__ void __launch_bounds__(tile_threads)
    weights_kernel(const __grid_constant__ BackwardWeightsArgs<T> args,
                   const __grid_constant__ GradientParts<Compute<T>> parts) {
    __shared__ TileMemory<T> memory;
    if (!args.gradient && !permits(args.permission)) return;
    const WeightTile<T> tile = weight_tile<T>(args.inner, args.columns, args.first_panel);
    const int part = static_cast<int>(blockIdx.z);
    Compute<T> total[sums_of_thread] = {};
    if (args.gradient && args.accumulate && !parts.is_divided())
#pragma unroll
        for (int i = 0; i < sums_of_thread; ++i) {
            const Position p = Multiply<T>::position(i);
            if (tile.has_row(p.row)) total[i] = args.gradient[tile.at(p.row, p.column)];
        }
    add_steps<T, false, Multiply<T>::longest_gradient>(
        RowSteps<T>(args, tile, parts.first_row(part), parts.last_row(part)), memory, total);
    // What A has of NaN and infinity makes NaN of a zero beside it.
#pragma unroll
    for (int i = 0; i < sums_of_thread; ++i)
        if (!tile.has_column(Multiply<T>::position(i).column)) total[i] = 0;
    share_sums<T>(total, memory);
    finish_tile(args, parts, part, tile, TileSums<T>{memory});
}

template <class T>
__global__ void __launch_bounds__(column_block* column_lanes)
    bias_kernel(const __grid_constant__ BackwardWeightsArgs<T> args,
                const __grid_constant__ GradientParts<Compute<T>> parts) {
    __shared__ ColumnMemory<Compute<T>> memory;
    if (!args.gradient && !permits(args.permission)) return;
    const int part = static_cast<int>(blockIdx.z), share = static_cast<int>(blockIdx.y);
    const std::int64_t panel = args.first_panel + blockIdx.x, j = panel * column_block + column_of_thread();
    const bool exists = j < args.columns;
    const std::int64_t end = parts.last_row(part);
    Compute<T> total = 0;
    for (std::int64_t first = parts.first_row(part, share); first < end; first += parts.share_step()) {
        const std::int64_t rows = end - first < gradient_stretch ? end - first : gradient_stretch;
        total = total + sum_rows(rows, memory, [&](std::int64_t i) {
                    return exists ? read(args.delta, first + i, j) : Compute<T>(0);
                });
    }
    if (leads_column()) *parts.bias_at(part, share, panel, column_of_thread()) = total;
}

// One weight, on the paths that have launches for each.
template <class T>
void launch_alone(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts) {
    static_assert(column_block == panel_width, "a block of the bias has a panel's columns");
    const dim3 tiles = weight_grid(args.inner, args.first_panel, args.last_panel);
    const unsigned count = static_cast<unsigned>(parts.count);
    if (tiles.y == 0) return;
    if (tiles.x > 0 && !ampere::launch_weights(args, parts))
        launch<weights_kernel<T>>(dim3(tiles.x, tiles.y, count), tile_threads, args, parts);
    if (args.has_bias)
        launch<bias_kernel<T>>(dim3(tiles.y, static_cast<unsigned>(parts.bias_shares), count),
                               column_block * column_lanes, args, parts);
}

}  // namespace

template <class T>
void backward_all_weights(const BackwardWeightsArgs<T>* calls, std::int64_t count) {
    const Scratch scratch;
    while (count > 0) {
        WeightGroup<T> group;
        group.count = group_size(calls, count, hopper::most_weights<T>());
        std::copy_n(calls, group.count, group.calls);
        calls += group.count, count -= group.count;
        divide(group, scratch);
        for (int m = hopper::launch_weights(group); m < group.count; ++m) launch_alone(group.calls[m], group.parts[m]);
        launch_finish(group);
    }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args) {
    backward_all_weights(&args, 1);
}

#define RC_INSTANTIATE(T)                                          \
    template void backward_weights(const BackwardWeightsArgs<T>&); \
    template void backward_all_weights(const BackwardWeightsArgs<T>*, std::int64_t);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

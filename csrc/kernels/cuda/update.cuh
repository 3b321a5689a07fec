// The optimizer on one tile of a packed weight, and the tile's copies in the operands.
//
// Invariant: a block owns 64 rows of W in one panel, which are also a whole tile of the transpose: no block writes what
// another does.
#pragma once

#include "kernels/cuda/product.cuh"
#include "math/optimizer.h"

namespace resnetcore {
namespace cuda {

// Rows [first_row, …) of one panel of W (inner, columns).
template <class T>
struct WeightTile {
    std::int64_t inner, columns, panel, first_row;
    // Of the element in a packed array.
    __device__ __forceinline__ std::int64_t at(int row, int column) const {
        return (panel * inner + first_row + row) * panel_width + column;
    }
    __device__ __forceinline__ bool has_row(int row) const { return first_row + row < inner; }
    __device__ __forceinline__ bool has_column(int column) const { return panel * panel_width + column < columns; }
};

// n neighbours of a packed array and of its states, from element `at` on.
template <class C, int n>
struct SlotStretch {
    Stretch<C, n> value, state[2];
};
template <class Optimizer, int n, class C>
__device__ __forceinline__ SlotStretch<C, n> read_slot(const Slot<C>& slot, std::int64_t at) {
    SlotStretch<C, n> read_now = {};
    read_now.value = read<n>(slot.value + at);
    for (int s = 0; s < Optimizer::states; ++s) read_now.state[s] = read<n>(slot.state[s] + at);
    return read_now;
}
// Returns their new values.
template <class Optimizer, int n, class C>
__device__ __forceinline__ Stretch<C, n> update_slot(const Slot<C>& slot, std::int64_t at, SlotStretch<C, n>& old,
                                                     const Stretch<C, n>& gradient, const Hyper<C>& hyper) {
#pragma unroll
    for (int i = 0; i < n; ++i)
        old.value.at[i] =
            Optimizer::apply(old.value.at[i], gradient.at[i], old.state[0].at[i], old.state[1].at[i], hyper);
    for (int s = 0; s < Optimizer::states; ++s) write(old.state[s], slot.state[s] + at);
    write(old.value, slot.value + at);
    return old.value;
}
template <class Optimizer, int n, class C>
__device__ __forceinline__ Stretch<C, n> update_stretch(const Slot<C>& slot, std::int64_t at,
                                                        const Stretch<C, n>& gradient, const Hyper<C>& hyper) {
    SlotStretch<C, n> old = read_slot<Optimizer, n>(slot, at);
    return update_slot<Optimizer>(slot, at, old, gradient, hyper);
}
template <class Optimizer, class C>
__device__ __forceinline__ C update_element(const Slot<C>& slot, std::int64_t at, C gradient, const Hyper<C>& hyper) {
    return update_stretch<Optimizer>(slot, at, Stretch<C, 1>{{gradient}}, hyper).at[0];
}

// A tile's sums in shared memory, by row and column.
template <class T>
struct TileSums {
    TileMemory<T>& memory;
    __device__ __forceinline__ Compute<T> get(int row, int column) const { return memory.sums[row][column]; }
    __device__ __forceinline__ void set(int row, int column, Compute<T> x) const { memory.sums[row][column] = x; }
};

// `sums` has the tile's gradient, and then its new values. Padding is updated like the rest: zeros stay zeros.
template <class T, class Sums>
__device__ __forceinline__ void update_tile(const WeightTile<T>& tile, const Sums& sums, const Slot<Compute<T>>& weight,
                                            const Operands<T>& operands, int optimizer,
                                            const Hyper<Compute<T>>& hyper) {
    visit_type(optimizer, Optimizers{}, [&](auto rule) {
        for_tile([&](int row, int column) {
            if (!tile.has_row(row)) return;
            const Compute<T> value =
                update_element<decltype(rule)>(weight, tile.at(row, column), sums.get(row, column), hyper);
            sums.set(row, column, value);
            if constexpr (!computes_itself<T>) {
                const std::int64_t k = tile.panel * operand_rows<T>(tile.inner) + tile.first_row + row;
                write(value, operands.panels[k * panel_width + column]);
            }
        });
    });
    __syncthreads();
    for_tile([&](int column, int row) {
        if (!tile.has_row(row) || !tile.has_column(column)) return;
        const std::int64_t k =
            tile.first_row / panel_width * operand_rows<T>(tile.columns) + tile.panel * panel_width + column;
        write(sums.get(row, column), operands.transposed[k * panel_width + row]);
    });
}

// Tiles of the panels [first_panel, last_panel).
inline dim3 weight_grid(std::int64_t inner, std::int64_t first_panel, std::int64_t last_panel) {
    return dim3(static_cast<unsigned>((inner + tile_size - 1) / tile_size),
                static_cast<unsigned>(last_panel - first_panel));
}
template <class T>
__device__ __forceinline__ WeightTile<T> weight_tile(std::int64_t inner, std::int64_t columns,
                                                     std::int64_t first_panel) {
    return {inner, columns, first_panel + blockIdx.y, static_cast<std::int64_t>(blockIdx.x) * tile_size};
}

}  // namespace cuda
}  // namespace resnetcore

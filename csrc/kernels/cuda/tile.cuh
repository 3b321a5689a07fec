// The tile of sums that a block has, whatever multiplies.
#pragma once

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {

constexpr int tile_size = 64;  // rows and columns
constexpr int tile_threads = 256;
constexpr int sums_of_thread = tile_size * tile_size / tile_threads;
static_assert(tile_size == panel_width, "a block reads whole rows of a panel");

struct Position {
    int row, column;
};

// visit(row, column) for this thread's share of a tile; neighbouring threads have neighbouring columns.
template <class Visit>
__device__ __forceinline__ void for_tile(Visit visit) {
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < tile_size * tile_size; at += tile_threads)
        visit(at / tile_size, at % tile_size);
}

}  // namespace cuda
}  // namespace resnetcore

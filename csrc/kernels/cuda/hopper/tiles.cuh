// The tiles of a matrix of sums, shared out among as many blocks as run at a time.
//
// Invariant: a block has every tile whose number is its own, counted on by the number of blocks. Tiles are numbered
// along the rows, so that blocks that run at the same time read the same rows. Where sums are taken in parts, all tiles
// of a part come before those of the next.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

class Tiles {
public:
    __device__ __forceinline__ Tiles(std::int64_t rows, std::int64_t columns, int parts = 1)
        : across_(across(columns)), count_(count(rows, columns)), parts_(parts), at_(blockIdx.x) {
        find_part();
    }
    __device__ __forceinline__ bool exists() const { return part_ < parts_; }
    __device__ __forceinline__ void advance() {
        at_ += gridDim.x;
        find_part();
    }
    __device__ __forceinline__ std::int64_t first_row() const { return at_ / across_ * tile_rows; }
    __device__ __forceinline__ std::int64_t first_column() const { return at_ % across_ * tile_columns; }
    __device__ __forceinline__ int part() const { return part_; }

    // A block for each multiprocessor, as its shared memory has room for one, or for each of fewer tiles.
    static dim3 grid(std::int64_t rows, std::int64_t columns, int parts = 1) {
        const std::int64_t tiles = parts * count(rows, columns), at_a_time = processor_count();
        return dim3(static_cast<unsigned>(tiles < at_a_time ? tiles : at_a_time));
    }

private:
    static __host__ __device__ std::int64_t across(std::int64_t columns) {
        return (columns + tile_columns - 1) / tile_columns;
    }
    static __host__ __device__ std::int64_t count(std::int64_t rows, std::int64_t columns) {
        return (rows + tile_rows - 1) / tile_rows * across(columns);
    }

    __device__ __forceinline__ void find_part() {
        if (at_ < count_) return;
        const auto found = cuda::place_of(at_, at_ + 1, count_);
        part_ += static_cast<int>(found.i);
        at_ = found.j;
    }

    std::int64_t across_, count_;
    int parts_, part_ = 0;
    std::int64_t at_;  // among the tiles of the part
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

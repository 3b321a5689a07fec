// The tiles of a matrix of sums, shared out among as many blocks as run at a time.
//
// Invariant: a block has every tile whose number is its own, counted on by the number of blocks. Tiles are numbered
// along the rows, so that blocks that run at the same time read the same rows.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

class Tiles {
public:
    __device__ __forceinline__ Tiles(std::int64_t rows, std::int64_t columns)
        : across_(across(columns)), count_(count(rows, columns)), at_(blockIdx.x) {}
    __device__ __forceinline__ bool exists() const { return at_ < count_; }
    __device__ __forceinline__ void advance() { at_ += gridDim.x; }
    __device__ __forceinline__ std::int64_t first_row() const { return at_ / across_ * tile_rows; }
    __device__ __forceinline__ std::int64_t first_column() const { return at_ % across_ * tile_columns; }

    // A block for each multiprocessor, as its shared memory has room for one, or for each of fewer tiles.
    static dim3 grid(std::int64_t rows, std::int64_t columns) {
        const std::int64_t tiles = count(rows, columns), at_a_time = processor_count();
        return dim3(static_cast<unsigned>(tiles < at_a_time ? tiles : at_a_time));
    }

private:
    static __host__ __device__ std::int64_t across(std::int64_t columns) {
        return (columns + tile_columns - 1) / tile_columns;
    }
    static __host__ __device__ std::int64_t count(std::int64_t rows, std::int64_t columns) {
        return (rows + tile_rows - 1) / tile_rows * across(columns);
    }

    std::int64_t across_, count_, at_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

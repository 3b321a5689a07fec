// The tiles of a matrix of sums, of 128 rows and so many columns, shared out among as many blocks as run at a time.
//
// Invariant: a block has every tile whose number is its own, counted on by the number of blocks. Tiles are numbered
// along the rows, so that blocks that run at the same time read the same rows.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

template <int width>
class Tiles {
public:
    __device__ __forceinline__ Tiles(std::int64_t rows, std::int64_t columns)
        : across_(across(columns)), count_(count(rows, columns)), at_(blockIdx.x) {}
    __device__ __forceinline__ bool exists() const { return at_ < count_; }
    __device__ __forceinline__ void advance() { at_ += gridDim.x; }
    __device__ __forceinline__ std::int64_t first_row() const { return at_ / across_ * tile_rows; }
    __device__ __forceinline__ std::int64_t first_column() const { return at_ % across_ * width; }

    static RC_HD std::int64_t count(std::int64_t rows, std::int64_t columns) {
        return (rows + tile_rows - 1) / tile_rows * across(columns);
    }

private:
    static RC_HD std::int64_t across(std::int64_t columns) { return (columns + width - 1) / width; }

    std::int64_t across_, count_, at_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// The tiles of the gradients of several weights, shared out among as many blocks as run at a time.
//
// Invariant: a block has every tile whose number is its own, counted on by the number of blocks: all of one weight,
// part after part, before those of the next, so that blocks that run at the same time read the same rows. Numbers have
// 32 bits, for the registers that a thread would hold twice as many of: a tile of W is 64 KiB.
#pragma once

#include "kernels/cuda/gradient_parts.cuh"
#include "kernels/cuda/hopper/tile.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

static_assert(tile_rows == weight_tile_side && tile_columns == weight_tile_side, "a tile is what parts count");

template <class T>
class WeightTiles {
public:
    // Of the group's first `members`.
    __device__ __forceinline__ WeightTiles(const WeightGroup<T>& group, int members)
        : group_(group), members_(members), at_(static_cast<int>(blockIdx.x)) {
        find();
    }
    static RC_HD int count(const GradientParts<Compute<T>>& parts) {
        return parts.count * parts.tiles_down() * parts.tiles_across();
    }

    __device__ __forceinline__ bool exists() const { return member_ < members_; }
    __device__ __forceinline__ void advance() {
        at_ += static_cast<int>(gridDim.x);
        find();
    }
    __device__ __forceinline__ int member() const { return member_; }
    __device__ __forceinline__ const BackwardWeightsArgs<T>& call() const { return group_.calls[member_]; }
    __device__ __forceinline__ const GradientParts<Compute<T>>& parts() const { return group_.parts[member_]; }
    // Of W, from the first of its panels that are asked for on.
    __device__ __forceinline__ int first_row() const { return first_row_; }
    __device__ __forceinline__ int first_column() const { return first_column_; }
    __device__ __forceinline__ int part() const { return part_; }

private:
    __device__ __forceinline__ void find() {
        for (; member_ < members_; ++member_) {
            const int all = count(parts());
            if (at_ < all) break;
            at_ -= all;
        }
        if (!exists()) return;
        const int across = parts().tiles_across(), of_part = across * parts().tiles_down(), tile = at_ % of_part;
        part_ = at_ / of_part;
        first_row_ = tile / across * tile_rows;
        first_column_ = tile % across * tile_columns;
    }

    const WeightGroup<T>& group_;
    int members_, member_ = 0;
    int at_;  // among the member's tiles
    int part_ = 0, first_row_ = 0, first_column_ = 0;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

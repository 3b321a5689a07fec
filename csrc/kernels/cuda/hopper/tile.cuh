// A block's tile of 128 × 128 sums, by two warpgroups of 64 rows each: how it is summed, and how it is left.
//
// Invariant: as everywhere (product.cuh), the order in which a sum's terms are added depends on their number alone.
// Parts of it are summed by the matrix units, which cut off what they add, and the parts in float.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper/descriptor.cuh"
#include "kernels/cuda/hopper/ring.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int tile_rows = 128, tile_columns = 128, group_rows = 64;
constexpr int group_threads = 128, warps_of_group = 4;
constexpr int using_groups = tile_rows / group_rows;
constexpr int block_threads = (1 + using_groups) * group_threads;  // one more has the stages filled

// What a block of so many warpgroups may take for all of them together, a thread of each: at the start a thread has an
// equal share of 65,536 registers, down to a multiple of 8.
constexpr int registers_of_groups(int groups) { return groups * (65536 / (groups * group_threads) / 8 * 8); }

// A stage has 64 terms of the tile's rows, and of its columns: four boxes of 64 × 64. While one is multiplied and the
// one before is let go of, three are on their way: about as long as the way is.
constexpr int stage_terms = 64, stages = 5;
// In which sums are cut: as long as on the simple path.
constexpr int terms_in_part = MatrixUnit<bfloat16>::longest_sum,
              terms_in_gradient = MatrixUnit<bfloat16>::longest_gradient;
constexpr std::uint32_t box_bytes = 64 * box_row;
constexpr std::uint32_t stage_bytes = 4 * box_bytes;
using TileRing = Ring<stage_bytes>;

// Sums on their way out, row after row. Eight neighbours stay together, at a place among 32 that changes with the row:
// so a warp's fragments, of four rows at a time, lie in different banks.
constexpr std::uint32_t left_bytes = tile_rows * tile_columns * sizeof(float);
__device__ __forceinline__ Shared place_of_sum(Shared left, int row, int column) {
    return left + static_cast<std::uint32_t>(row * tile_columns + (column ^ row % 4 * 8)) * sizeof(float);
}

// Stages, first, lie on a boundary of 1024.
constexpr std::uint32_t tile_shared_bytes =
    stages * stage_bytes + left_bytes + barrier_bytes(stages) + using_groups * Handover::bytes;
static_assert(tile_shared_bytes <= 227 * 1024, "what a block may have");

// A block for each multiprocessor, as its shared memory has room for one, or for each of fewer tiles.
inline dim3 blocks_for_tiles(std::int64_t tiles) {
    const std::int64_t at_a_time = processor_count();
    return dim3(static_cast<unsigned>(tiles < at_a_time ? tiles : at_a_time));
}

struct TileShared {
    Shared stages, left, barriers;
    __device__ __forceinline__ TileShared()
        : stages(shared_memory()), left(stages + hopper::stages * stage_bytes), barriers(left + left_bytes) {}
    __device__ __forceinline__ TileRing ring() const { return {stages, barriers, hopper::stages}; }
    // Of a group's rows in `left`.
    __device__ __forceinline__ Handover handover(int of) const {
        return Handover(barriers + barrier_bytes(hopper::stages) + static_cast<std::uint32_t>(of) * Handover::bytes);
    }
};

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) / group_threads; }
// Which of the tile's halves this warpgroup has, of those that multiply and of those that finish for them.
__device__ __forceinline__ int half_of_group(int thread = static_cast<int>(threadIdx.x)) {
    return (thread / group_threads - 1) % using_groups;
}
// Of this warp, among the tile's.
__device__ __forceinline__ int first_row_of_warp(int thread = static_cast<int>(threadIdx.x)) {
    return half_of_group(thread) * group_rows + thread % group_threads / 32 * (group_rows / warps_of_group);
}

// Where this thread's sum i lies, among the warp's rows and the tile's columns (atoms.cuh, `multiply`).
__device__ __forceinline__ int row_of_sum(int i) { return lane() / 4 + i % 4 / 2 * 8; }
__device__ __forceinline__ int column_of_sum(int i) { return i / 4 * 8 + 2 * (lane() % 4) + i % 2; }

// Sums of this thread, of the terms in the next n stages, from the operands' step `first` on. `Operands`: a(stage,
// step, product) and b(stage, product) are descriptors, and how memory goes along them. A stage is let go of while the
// next one is multiplied.
template <class Ring, class Steps, class Operands, int count>
__device__ __forceinline__ void multiply_stages(const Ring& ring, Place& place, Steps first, int n,
                                                const Operands& operands, float (&sums)[count]) {
    const auto let_go = [&ring](const Place& used) {
        if (lane() == 0) ring.let_go(used);
    };
    Place used = place;
#pragma unroll 1
    for (int step = 0; step < n; ++step) {
        const Shared stage = ring.begin_using(place);
        keep_in_place(sums);
        product_fence();  // after the wait, where ptxas would put one of its own
#pragma unroll
        for (int k = 0; k < stage_terms / product_depth; ++k)
            multiply<Operands::a_along_rows, Operands::b_along_columns>(sums, operands.a(stage, first + step, k),
                                                                        operands.b(stage, k), step > 0 || k > 0);
        commit_products();
        wait_for_products<1>();
        if (step > 0) let_go(used);
        used = place;
        ring.advance(place);
    }
    wait_for_products<0>();
    keep_in_place(sums);
    let_go(used);
}

// Adds to the sums of this thread those of the terms in the next `steps` stages, in parts of so many terms.
template <int terms, class Ring, class Steps, class Operands, int count>
__device__ __forceinline__ void add_stages(const Ring& ring, Place& place, Steps steps, const Operands& operands,
                                           float (&total)[count]) {
    constexpr int steps_in_part = terms / stage_terms;
    float part[count] = {};
    for (Steps done = 0; done < steps; done += steps_in_part) {
        const int n = steps - done < steps_in_part ? static_cast<int>(steps - done) : steps_in_part;
        multiply_stages(ring, place, done, n, operands, part);
#pragma unroll
        for (int i = 0; i < count; ++i) total[i] = total[i] + part[i];
    }
}

__device__ __forceinline__ void load_stretch(Shared from, Stretch<float, 8>& x) {
    load(from, x.at[0], x.at[1], x.at[2], x.at[3]);
    load(from + 16, x.at[4], x.at[5], x.at[6], x.at[7]);
}

__device__ __forceinline__ void store_stretch(Shared to, const Stretch<float, 8>& x) {
    store(to, x.at[0], x.at[1], x.at[2], x.at[3]);
    store(to + 16, x.at[4], x.at[5], x.at[6], x.at[7]);
}

// The warp's 16 rows of sums, from registers to shared memory.
__device__ __forceinline__ void leave_rows(const float (&total)[64], Shared left) {
    // Four eighths of 32 columns are as far on as those of the first 32, and eight rows are on the same place of the
    // pattern.
#pragma unroll
    for (int eighth = 0; eighth < 4; ++eighth) {
        const Shared at = place_of_sum(left, first_row_of_warp() + row_of_sum(0), eighth * 8 + column_of_sum(0));
#pragma unroll
        for (int i = 4 * eighth; i < 64; i += 16)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                store(at + static_cast<std::uint32_t>(half * 8 * tile_columns + i / 16 * 32) * sizeof(float),
                      total[i + 2 * half], total[i + 2 * half + 1]);
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// A block's tile of 128 rows and one or two panels' columns of bfloat16's sums, on GPUs that copy to shared memory past
// the registers: stages of 32 terms are on their way while one is multiplied, and a warp's fragments come from shared
// memory by whole matrices.
//
// Invariant: a sum's terms are added by the same instructions in the same order as on the simple path (product.cuh), so
// that its bits are the same, whichever tile it is of.
#pragma once

#include "kernels/cuda/ampere/atoms.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/product.cuh"

namespace resnetcore {
namespace cuda {
namespace ampere {

constexpr int tile_rows = 128, threads = 256, warps = threads / 32;
static_assert(threads == tile_threads, "finished by as many as a simple tile (tile.cuh)");
constexpr int stage_terms = MatrixUnit<bfloat16>::depth, stages = 4;

// What is copied at a time: eight neighbours.
constexpr int place_numbers = 8, place_bytes = 16;

// A box of a stage has 64 numbers of each of its terms, which lie side by side: of a panel of W, or of a batch's row.
// Eight places of a row are at the eight banks of 16 bytes in another order for each of eight rows: those that a warp
// loads or stores together are never at the same.
constexpr int box_width = panel_width;
constexpr std::uint32_t box_bytes = stage_terms * box_width * sizeof(bfloat16);
__device__ __forceinline__ std::uint32_t place_in_box(int term, int place) {
    return static_cast<std::uint32_t>(term * (box_width / place_numbers) + (place ^ term % 8)) * place_bytes;
}
// Rows of A have their terms side by side: four places a row, two rows at eight banks.
constexpr int places_of_row = stage_terms / place_numbers;
__device__ __forceinline__ std::uint32_t place_in_rows(int row, int place) {
    return static_cast<std::uint32_t>(row * places_of_row + (place ^ row / 2 % places_of_row)) * place_bytes;
}

// Of A in a stage, either way, and then of the tile's panels. When all is summed, sums lie there.
constexpr std::uint32_t a_bytes = tile_rows * stage_terms * sizeof(bfloat16);
static_assert(a_bytes == tile_rows / box_width * box_bytes, "as much either way");
template <int panels>
constexpr std::uint32_t stage_bytes = a_bytes + panels * box_bytes;
// Rows of sums are 16 bytes longer than their columns: eight of them, gone through down a column, are at different
// banks, and two lanes at a time are at the same where rows are written or read.
template <int panels>
constexpr int sums_pitch = panels * panel_width + 4;
template <int panels>
constexpr std::uint32_t sums_bytes = tile_rows * sizeof(float) * sums_pitch<panels>;
template <int panels>
constexpr std::uint32_t stages_bytes = stages * stage_bytes<panels>;
template <int panels>
constexpr std::uint32_t shared_bytes =
    stages_bytes<panels> < sums_bytes<panels> ? sums_bytes<panels> : stages_bytes<panels>;
static_assert(shared_bytes<2> <= 99 << 10,
              "what a block may have on every GPU since (compute capability 8.6 has least)");

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

// A warp's part of the tile: `blocks_down` blocks of 16 rows and four of eight columns.
template <int panels>
struct WarpTile {
    static constexpr int columns = 32, across = panels * panel_width / columns, down = warps / across;
    static constexpr int rows = tile_rows / down, blocks_down = rows / 16, blocks_across = columns / 8;
    static constexpr int count = blocks_down * blocks_across * 4;  // of a thread's sums

    static __device__ __forceinline__ int first_row() { return warp() % down * rows; }
    static __device__ __forceinline__ int first_column() { return warp() / down * columns; }
    // Where this thread's sums begin that are at (down, across) of its blocks, two rows of two neighbours each.
    static __device__ __forceinline__ int sum(int block_down, int block_across) {
        return (block_down * blocks_across + block_across) * 4;
    }
    // visit(its sums' place in the array, row, column), of each two neighbours.
    template <class Visit>
    static __device__ __forceinline__ void for_pairs(Visit visit) {
#pragma unroll
        for (int i = 0; i < count; i += 2)
            visit(i, first_row() + i / 4 / blocks_across * 16 + i % 4 / 2 * 8 + lane() / 4,
                  first_column() + i / 4 % blocks_across * 8 + lane() % 4 * 2);
    }
};

// sums += the products of a stage's terms. `along`: A's rows have their terms side by side.
template <int panels, bool along>
__device__ __forceinline__ void multiply_stage(Shared stage, float (&sums)[WarpTile<panels>::count]) {
    using Warp = WarpTile<panels>;
    // A lane's row of matrices that a fragment is of, which are two across and two down.
    const int in_matrix = lane() % 8, second = lane() / 8 % 2, last = lane() / 16;
    const Shared of_b = stage + a_bytes;
#pragma unroll
    for (int k = 0; k < stage_terms; k += 16) {
        std::uint32_t a[Warp::blocks_down][4], b[Warp::blocks_across][2];
#pragma unroll
        for (int block = 0; block < Warp::blocks_down; ++block) {
            const int row = Warp::first_row() + block * 16;
            if constexpr (along)
                load_matrices(stage + place_in_rows(row + second * 8 + in_matrix, k / place_numbers + last), a[block]);
            else
                load_transposed(stage + static_cast<std::uint32_t>(row / box_width) * box_bytes +
                                    place_in_box(k + last * 8 + in_matrix, row % box_width / place_numbers + second),
                                a[block]);
        }
#pragma unroll
        for (int block = 0; block < Warp::blocks_across; block += 2) {
            const int column = Warp::first_column() + block * 8;
            std::uint32_t two[4];
            load_transposed(of_b + static_cast<std::uint32_t>(column / box_width) * box_bytes +
                                place_in_box(k + second * 8 + in_matrix, column % box_width / place_numbers + last),
                            two);
            b[block][0] = two[0], b[block][1] = two[1], b[block + 1][0] = two[2], b[block + 1][1] = two[3];
        }
#pragma unroll
        for (int down = 0; down < Warp::blocks_down; ++down)
#pragma unroll
            for (int across = 0; across < Warp::blocks_across; ++across)
                multiply_fragments(sums + Warp::sum(down, across), a[down], b[across]);
    }
}

// total += all terms, in parts of `longest`. `Steps` has: count(), all its stages; copy_to(stage), the terms that it is
// at, by all threads; advance(), to the next ones, if there are more.
template <int panels, bool along, int longest, class Steps>
__device__ __forceinline__ void add_stages(Steps steps, Shared memory, float (&total)[WarpTile<panels>::count]) {
    static_assert(longest % stage_terms == 0, "a part is whole stages");
    const auto stage = [&](int step) {
        return memory + static_cast<std::uint32_t>(step) % stages * stage_bytes<panels>;
    };
    const int count = steps.count();
    // A group for each stage, be there anything to copy or not.
    const auto copy = [&](int step) {
        if (step < count) {
            steps.copy_to(stage(step));
            steps.advance();
        }
        commit_copies();
    };
    for (int step = 0; step < stages - 1; ++step) copy(step);
    float part[WarpTile<panels>::count] = {};
    int terms = 0;
#pragma unroll 1
    for (int step = 0; step < count; ++step) {
        wait_for_copies<stages - 2>();
        __syncthreads();  // the stage has arrived for all, and the one before it has been multiplied by all
        copy(step + stages - 1);
        multiply_stage<panels, along>(stage(step), part);
        terms += stage_terms;
        if (terms == longest || step + 1 == count) {
            terms = 0;
#pragma unroll
            for (int i = 0; i < WarpTile<panels>::count; ++i) total[i] = total[i] + part[i], part[i] = 0;
        }
    }
    wait_for_copies<0>();
    __syncthreads();  // what the stages had is of no more use
}

// The tile's sums in shared memory, where stages were.
template <int panels>
struct SharedSums {
    Shared memory;

    __device__ __forceinline__ Shared place(int row, int column) const {
        return memory + static_cast<std::uint32_t>(row * sums_pitch<panels> + column) * sizeof(float);
    }
    // By all threads, before any of them reads.
    __device__ __forceinline__ void leave(const float (&total)[WarpTile<panels>::count]) const {
        WarpTile<panels>::for_pairs(
            [&](int i, int row, int column) { store(place(row, column), total[i], total[i + 1]); });
        __syncthreads();
    }
};

// Tiles of so many panels for a matrix of results: of two, where there are enough tiles for the whole GPU.
inline bool fills_gpu(std::int64_t rows, std::int64_t panels) {
    return panels >= 2 && (rows + tile_rows - 1) / tile_rows * ((panels + 1) / 2) >= processor_count();
}

}  // namespace ampere
}  // namespace cuda
}  // namespace resnetcore

// A chain of narrow layers in one launch, on Hopper: a block takes a tile of rows through all of them. What a layer
// reads stays in shared memory; its weights come in stages, or stay too, where there is room for all.
//
// Invariant: the two warpgroups that multiply have rows of their own, and meet nobody but themselves and, through the
// ring, the thread that has stages filled. Who stores an operand fences, and an operation ends when the warpgroup
// meets: then all of its output is there for products.
#pragma once

#include <limits>

#include "kernels/cuda/hopper/chain_epilogue.cuh"
#include "kernels/cuda/hopper/chain_planner.cuh"
#include "kernels/cuda/hopper/tiles.cuh"
#include "kernels/cuda/largest.cuh"
#include "kernels/cuda/path.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

template <int panels>
using ChainRing = Ring<panels * box_bytes>;

struct ChainShared {
    Shared boxes, stages, barriers;
    __device__ __forceinline__ ChainShared(const ChainProgram& program, std::uint32_t stage_bytes)
        : boxes((shared_memory() + atom_bytes - 1) / atom_bytes * atom_bytes),
          stages(boxes + program.boxes * chain_box_bytes),
          barriers(stages + program.stages * stage_bytes) {}
};

// A's rows are on the chip, terms of an operation one after another; a stage has the weights.
struct ChainOperands {
    static constexpr bool a_along_rows = false, b_along_columns = true;
    const ChainTile& tile;
    const ChainTerm* terms;
    __device__ __forceinline__ std::uint64_t a(Shared, std::int64_t step, int product) const {
        return along_terms(tile.box(terms[step].box), product);
    }
    __device__ __forceinline__ std::uint64_t b(Shared stage, int product) const {
        return across_terms(stage, product, box_bytes);
    }
};

template <int panels>
__device__ __forceinline__ void fill_stages(const ChainRing<panels>& ring, const ChainProgram& program,
                                            std::int64_t tiles) {
    Place place;
    for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        for (int o = 0; o < program.n_operations; ++o) {
            const ChainOperation& operation = program.operations[o];
            for (int panel = 0; panel * panel_width < operation.columns; panel += panels)
                for (int t = 0; t < operation.n_terms; ++t, ring.advance(place)) {
                    const ChainTerm& term = program.terms[operation.first_term + t];
                    const Shared stage = ring.begin_filling(place);
                    copy_box(stage, program.maps[term.map], 0, term.step * stage_terms, panel, ring.full(place));
                }
        }
        if (program.resident) return;
    }
}

// Rows that the chain has not made itself, with zeros where there are none.
__device__ __forceinline__ void load_rows(const ChainOperation& operation, const ChainTile& tile) {
    const int eighths = (operation.columns + box_width - 1) / box_width * 8;
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x) % group_threads; at < group_rows * eighths; at += group_threads) {
        const int row = at / eighths, eighth = at % eighths, j = 8 * eighth;
        Words words = {};
        if (tile.has(row) && j < operation.columns) {
            const bfloat16* const from = operation.in.data + (tile.first_row + row) * operation.in.stride + j;
            if (j + 8 <= operation.columns)
                words = *reinterpret_cast<const Words*>(from);
            else
#pragma unroll
                for (int c = 0; c < 8; ++c)
                    if (j + c < operation.columns)
                        words.at[c / 2] |= static_cast<std::uint32_t>(from[c].bits) << c % 2 * 16;
        }
        store_words(place_of(tile.box(operation.first_box + eighth / 8), row, eighth), words.at);
    }
    fence_stores();
}

template <int panels>
__device__ __forceinline__ void run_tiles(const ChainShared& shared, const ChainProgram& program, std::int64_t tiles) {
    const ChainRing<panels> ring(shared.stages, shared.barriers, program.stages);
    const std::uint32_t meeting = static_cast<std::uint32_t>(group());
    std::uint32_t most_a = 0, most_delta = 0;
    Place place;
    for (std::int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        const ChainTile tile{shared.boxes + (meeting - 1) * box_bytes,
                             t * program.tile_rows() + (group() - 1) * group_rows, program.rows};
        if (program.resident) place = Place();
#pragma unroll 1
        for (int o = 0; o < program.n_operations; ++o) {
            const ChainOperation& operation = program.operations[o];
            if (operation.kind == ChainOperation::Kind::load) load_rows(operation, tile);
            std::uint32_t most = 0;
#pragma unroll 1
            for (int column = 0; operation.kind != ChainOperation::Kind::load && column < operation.columns;
                 column += panels * panel_width) {
                float total[ChainEpilogue<panels>::count] = {};
                const ChainOperands operands{tile, program.terms + operation.first_term};
                add_stages<terms_in_part>(ring, place, operation.n_terms, operands, total);
                ChainEpilogue<panels>(program, operation, tile, column).finish(total, most);
            }
            if (operation.is_a && most > most_a) most_a = most;
            if (operation.is_delta && most > most_delta) most_delta = most;
            meet_group(meeting);
        }
    }
    const auto keep = [](std::uint32_t most, double* into) {
        if (into) keep_largest(magnitude_bits(to_float(bfloat16{static_cast<std::uint16_t>(most)})), into);
    };
    keep(most_a, program.largest_a), keep(most_delta, program.largest_delta);
}

template <int panels>
__global__ void __launch_bounds__(block_threads, 1) chain_kernel(const __grid_constant__ ChainProgram program) {
#if defined(RC_HOPPER)
    const ChainShared shared(program, panels * box_bytes);
    const ChainRing<panels> ring(shared.stages, shared.barriers, program.stages);
    if (threadIdx.x == 0) ring.make(static_cast<std::uint32_t>(program.groups * warps_of_group));
    __syncthreads();
    const std::int64_t tiles = program.tiles();
    if (group() == 0) {
        give_registers<filling_registers>();
        if (threadIdx.x < 32 && elect_one()) fill_stages<panels>(ring, program, tiles);
    } else {
        take_registers<using_registers>();
        run_tiles<panels>(shared, program, group() <= program.groups ? tiles : 0);
    }
#endif
}

template <int panels>
void launch_chain(ChainProgram& program) {
    const std::int64_t at_a_time = processor_count();
    // Fewer rows are shared out among more blocks, of one warpgroup each.
    if (program.rows <= at_a_time * group_rows) program.groups = 1;
    const std::int64_t blocks = std::min(program.tiles(), at_a_time);
    launch_with<chain_kernel<panels>>(chain_bytes(program.boxes, program.stages, panels),
                                      dim3(static_cast<unsigned>(blocks)), block_threads, program);
}

// What one launch takes at most; 0 where chains are not taken.
inline std::int64_t longest_chain() {
    return current_path() == Path::hopper_narrow ? ChainProgram::most_operations : 0;
}

// How many of the first steps were launched; 0 where they are not for this path.
template <class T>
std::int64_t launch_chain(const ChainArgs<T>& args) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        if (longest_chain() == 0 || args.n_steps == 0) return 0;
        const std::int64_t rows = link_of(args.steps[0]).rows;
        if (rows == 0 || rows > std::numeric_limits<std::int32_t>::max() - tile_rows) return 0;
        ChainProgram program;
        ChainPlanner planner(args, program);
        const std::int64_t done = planner.plan();
        if (done == 0) return 0;
        if (planner.panels() == 1)
            launch_chain<1>(program);
        else
            launch_chain<2>(program);
        return done;
    } else {
        (void)args;
        return 0;
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

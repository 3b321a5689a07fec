// A chain of narrow layers in one launch, on Hopper: a block takes a tile of rows through all of them. What a layer
// reads stays in shared memory; its weights come in stages, or stay too, where there is room for all.
//
// Invariant: a warpgroup that multiplies has rows of its own, or shares them with others and has every so many panels
// of 64 columns there. It meets those others and, through a ring of its columns' weights, the thread that has it
// filled. Who stores an operand fences, and an operation ends when those that share rows meet: then all of its output
// is there for products, and what it read may be written over. At a batch's norm all blocks meet, each of which has one
// tile then.
#pragma once

#include <limits>

#include "kernels/cuda/hopper/chain_epilogue.cuh"
#include "kernels/cuda/hopper/chain_norm.cuh"
#include "kernels/cuda/hopper/chain_planner.cuh"
#include "kernels/cuda/hopper/tiles.cuh"
#include "kernels/cuda/largest.cuh"
#include "kernels/cuda/path.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// A's rows are on the chip, terms of an operation one after another; a stage has the weights.
struct ChainOperands {
    static constexpr bool a_along_rows = false, b_along_columns = true;
    const ChainTile& tile;
    const ChainTerm* terms;
    __device__ __forceinline__ std::uint64_t a(Shared, int step, int product) const {
        return along_terms(tile.box(terms[step].box), product);
    }
    __device__ __forceinline__ std::uint64_t b(Shared stage, int product) const {
        return across_terms(stage, product, box_bytes);
    }
};

__device__ __forceinline__ void fill_stages(const ChainRing& ring, const ChainProgram& program, int column_group) {
    Place place;
    for (std::uint32_t tile = blockIdx.x; tile < program.tiles(); tile += gridDim.x) {
        for (int o = 0; o < program.n_operations; ++o) {
            const ChainOperation& operation = program.operations[o];
            for (int panel = column_group; panel * panel_width < operation.columns; panel += program.column_groups())
                for (int t = 0; t < operation.n_terms; ++t, ring.advance(place)) {
                    const ChainTerm& term = program.terms[operation.first_term + t];
                    const Shared stage = ring.begin_filling(place);
                    copy_box(stage, program.maps[term.map], 0, term.step * stage_terms, panel, ring.full(place));
                }
        }
        if (program.resident) return;
    }
}

// `Norms`: ChainNorms, or NoNorms where there are none.
template <class Norms>
__device__ __forceinline__ void run_tiles(const ChainShared& shared, const Norms& norms) {
    const ChainProgram& program = shared.program;
    const int row_group = (group() - 1) % program.row_groups, column_group = (group() - 1) / program.row_groups;
    const ChainRing ring = shared.ring(column_group);
    using Epilogue = ChainEpilogue<!std::is_same<Norms, NoNorms>::value>;
    std::uint32_t most_a = 0, most_delta = 0;
    Place place;
    for (std::uint32_t t = blockIdx.x; t < program.tiles(); t += gridDim.x) {
        const int first_row = static_cast<int>(t) * program.tile_rows() + row_group * group_rows;
        const ChainTile tile{shared.boxes + static_cast<std::uint32_t>(row_group) * box_bytes, program.box_bytes(),
                             first_row, program.rows - first_row};
        if (program.resident) place = Place();
#pragma unroll 1
        for (int o = 0; o < program.n_operations; ++o) {
            const ChainOperation& operation = program.operations[o];
            const ChainNormPass<Norms> norm(shared, norms, operation, tile, row_group, column_group);
            norm.put_together();
#pragma unroll 1
            for (int panel = column_group; panel * panel_width < operation.columns; panel += program.column_groups()) {
                if (norm.undoes()) {
                    const std::uint32_t most = norm.undo(panel);
                    if (operation.is_delta) most_delta = larger_of_each(most_delta, most);
                    continue;
                }
                Epilogue epilogue(program, operation, tile, panel * panel_width);
                if (operation.kind == ChainOperation::Kind::load) {
                    epilogue.load_rows();
                } else {
                    float total[Epilogue::count] = {};
                    const ChainOperands operands{tile, program.terms + operation.first_term};
                    add_stages<terms_in_part>(ring, place, static_cast<int>(operation.n_terms), operands, total);
                    const std::uint32_t most = epilogue.finish(total, norm.branch());
                    if (operation.is_a) most_a = larger_of_each(most_a, most);
                    if (operation.is_delta) most_delta = larger_of_each(most_delta, most);
                }
            }
            meet_groups(1 + row_group, program.column_groups());
        }
    }
    keep_largest_of_pair(most_a, program.largest_a);
    keep_largest_of_pair(most_delta, program.largest_delta);
}

template <class Norms>
__device__ __forceinline__ void run_chain(const ChainProgram& program, const Norms& norms) {
    const ChainShared shared(program);
    if (threadIdx.x == 0)
        for (int c = 0; c < program.column_groups(); ++c)
            shared.ring(c).make(static_cast<std::uint32_t>(program.row_groups * warps_of_group));
    __syncthreads();
    if (group() == 0) {
        give_registers<chain_filling_registers>();
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (warp < program.column_groups() && elect_one()) fill_stages(shared.ring(warp), program, warp);
    } else {
        take_registers<chain_using_registers>();
        run_tiles(shared, norms);
    }
}

__global__ void __launch_bounds__(chain_threads, 1) chain_kernel(const __grid_constant__ ChainProgram program) {
#if defined(RC_HOPPER)
    run_chain(program, NoNorms());
#endif
}
// With what a chain may have besides: norms, for which it is launched together, a tile for each block, and passes.
__global__ void __launch_bounds__(chain_threads, 1)
    fused_chain_kernel(const __grid_constant__ ChainProgram program, const __grid_constant__ ChainNorms norms) {
#if defined(RC_HOPPER)
    run_chain(program, norms);
#endif
}

// What one launch takes at most; 0 where chains are not taken.
inline std::int64_t longest_chain() {
    return current_path() >= Path::hopper_narrow ? ChainProgram::most_operations : 0;
}
inline bool chains_norms() { return current_path() == Path::hopper_fused; }

// How many of the first steps were launched; 0 where they are not for this path.
template <class T>
std::int64_t launch_chain(const ChainArgs<T>& args) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        if (longest_chain() == 0 || args.n_steps == 0) return 0;
        const std::int64_t rows = link_of(args.steps[0]).rows;
        if (rows == 0 || rows > std::numeric_limits<std::int32_t>::max() - chain_groups * group_rows) return 0;
        ChainProgram program;
        ChainNorms norms;
        const std::int64_t at_a_time = processor_count(),
                           done = ChainPlanner(args, chains_norms(), program, norms).plan(at_a_time);
        if (done == 0) return 0;
        const std::size_t bytes = chain_bytes(program, program.boxes, program.stages);
        const dim3 blocks(static_cast<unsigned>(std::min<std::int64_t>(program.tiles(), at_a_time)));
        if (norms.count > 0) {
            const Scratch scratch;
            norms.sums = static_cast<float*>(scratch.data()), norms.meeting = scratch.meeting();
            launch_together<fused_chain_kernel>(bytes, blocks, chain_threads, program, norms);
        } else if (program.has_passes()) {
            launch_with<fused_chain_kernel>(bytes, blocks, chain_threads, program, norms);
        } else {
            launch_with<chain_kernel>(bytes, blocks, chain_threads, program);
        }
        for (std::int64_t step = 0; step < done; ++step)
            if (Passes* passes = kept_passes(args.steps[step])) passes->there = true;
        return done;
    } else {
        (void)args;
        return 0;
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

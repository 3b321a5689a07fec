// Σ A·W over sources in bfloat16, on Hopper: what sources.cuh does, for the same epilogues, by bulk copies and
// warpgroups' products. A block goes through tiles; one of its warpgroups has their terms copied, ahead of the two that
// multiply, and two more finish the sums while those go on with the next tile: an epilogue is nothing but waiting for
// memory, which would be as long as the products of a thousand terms.
//
// Invariant: whether a sum is taken here is decided by the shapes, strides and places of its terms, never by the number
// of rows: a row's result does not depend on its batch. Which tiles take it may be, as their bits are the same.
#pragma once

#include <limits>

#include "kernels/cuda/hopper/broad_sum.cuh"
#include "kernels/cuda/hopper/source_stages.cuh"
#include "kernels/cuda/hopper/strip.cuh"
#include "kernels/cuda/path.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

using SumTiles = Tiles<tile_columns>;

constexpr int sum_threads = (1 + 2 * using_groups) * group_threads;
constexpr int copying_registers = 24, multiplying_registers_of_sums = 144, finishing_registers = 80;
static_assert(copying_registers + using_groups * (multiplying_registers_of_sums + finishing_registers) <=
                  registers_of_groups(1 + 2 * using_groups),
              "a block's registers");

__device__ __forceinline__ void multiply_tiles(const TileShared& shared, std::int64_t steps, SumTiles tiles) {
    const SourceOperands operands{static_cast<Shared>(half_of_group()) * group_rows * box_row};
    const Handover left = shared.handover(half_of_group());
    Place place, turn;
    for (; tiles.exists(); tiles.advance()) {
        float total[64] = {};
        add_stages<terms_in_part>(shared.ring(), place, steps, operands, total);
        left.begin_filling(turn);
        leave_rows(total, shared.left);
        left.end_filling(turn);
    }
}

// Of nearly every layer: `Epilogue` has `ahead`, what it keeps of a strip's global memory, and `finish_usual` for one
// of its stretches. The results' largest magnitudes are kept at even columns and at odd ones, as the bits of bfloat16.
template <int most, class Epilogue>
__device__ __forceinline__ void finish_usual_tiles(const TileShared& shared, const Epilogue& epilogue,
                                                   const Terms<bfloat16, most>& terms, SumTiles tiles) {
    const MutableRows<bfloat16>& out = epilogue.args.out;
    const Handover left = shared.handover(half_of_group());
    std::uint32_t largest = 0;
    for (Place turn; tiles.exists(); tiles.advance()) {
        const Strip strip(tiles.first_row(), tiles.first_column(), epilogue.args.rows, epilogue.args.columns);
        const auto ahead = epilogue.ahead(strip, terms);
        bfloat16* to = strip.place(out);
        left.begin_emptying(turn);
#pragma unroll
        for (int v = 0; v < Strip::count; ++v, to += Strip::apart * out.stride) {
            const Words results = words_of(epilogue.finish_usual(strip.sums(shared.left, v), ahead, v));
            if (!strip.has(v)) continue;
            write_words(to, results.at);
#pragma unroll
            for (int c = 0; c < 4; ++c) largest = larger_of_each(largest, results.at[c] & 0x7fff7fff);
        }
        left.end_emptying(turn);
    }
    keep_largest_of_pair(largest, epilogue.args.largest);
}

// visit(v, words of row v) for a strip's rows, in a loop, as an epilogue is long: what has been read ahead moves to
// where the loop looks for it. `begin` is called when all of it has been asked for.
template <class Begin, class Visit>
__device__ __forceinline__ void visit_strip(const Strip& strip, const Rows<bfloat16>& from, Begin begin, Visit visit) {
    Words words[Strip::count];
    strip.read(from, 0, words);
    begin();
#pragma unroll 1
    for (int v = 0; v < Strip::count; ++v) {
        visit(v, words[0]);
#pragma unroll
        for (int k = 0; k + 1 < Strip::count; ++k) words[k] = words[k + 1];
    }
}

// What no stretch of eight columns takes of the warp's rows, as of a classifier's ten columns: one by one, neighbours
// at a time.
template <int most, class Epilogue>
__device__ __forceinline__ void finish_elements(Shared left, const Epilogue& epilogue,
                                                const Terms<bfloat16, most>& terms, bool whole, const SumTiles& tiles,
                                                LargestResult<bfloat16>& largest) {
    constexpr int rows_of_warp = group_rows / warps_of_group;
    const std::int64_t first = tiles.first_column(), there = epilogue.args.columns - first;
    const int end = there < tile_columns ? static_cast<int>(there) : tile_columns;
    const int begin = whole ? end / Strip::width * Strip::width : 0, across = end - begin;
#pragma unroll 1
    for (int at = lane(); at < rows_of_warp * across; at += 32) {
        const int row = first_row_of_warp() + at / across, column = begin + at % across;
        const std::int64_t i = tiles.first_row() + row, j = first + column;
        if (i >= epilogue.args.rows) return;
        Stretch<float, 1> sum{{load(place_of_sum(left, row, column))}};
        epilogue.add(sum, terms, i, j, NothingKept());
        epilogue.add_branch(sum, i, j, NothingKept());
        epilogue.finish(sum, i, j, largest, NothingKept());
    }
}

// `whole`: everything that the epilogue touches lies on boundaries of 16 bytes, and so do stretches of 8 columns. Sums
// go back to shared memory between the epilogue's parts, so that what is kept of an array is out of the next one's way.
template <int most, class Epilogue>
__device__ __forceinline__ void finish_tiles(const TileShared& shared, const Epilogue& epilogue,
                                             const Terms<bfloat16, most>& terms, bool whole, SumTiles tiles) {
    const std::int64_t rows = epilogue.args.rows, columns = epilogue.args.columns;
    const Handover left = shared.handover(half_of_group());
    LargestResult<bfloat16> largest;
    for (Place turn; tiles.exists(); tiles.advance()) {
        const Strip strip(tiles.first_row(), tiles.first_column(), rows, whole ? columns : 0);
        const std::int64_t j = strip.column();
        const auto change = [&](int v, auto part) {
            const Shared at = strip.place(shared.left, v);
            Stretch<float, Strip::width> sums = strip.sums(shared.left, v);
            part(sums);
            store_stretch(at, sums);
        };
        visit_strip(
            strip, terms.n_identity > 0 ? terms.identity[0] : Rows<bfloat16>(), [&] { left.begin_emptying(turn); },
            [&](int v, const Words& words) {
                if (strip.has(v))
                    change(v, [&](auto& sums) { epilogue.add(sums, terms, strip.row(v), j, KeptWords{words}); });
            });
        if (epilogue.branch().data)
            visit_strip(
                strip, epilogue.branch(), [] {},
                [&](int v, const Words& words) {
                    if (strip.has(v))
                        change(v, [&](auto& sums) { epilogue.add_branch(sums, strip.row(v), j, KeptWords{words}); });
                });
        visit_strip(
            strip, epilogue.last(), [] {},
            [&](int v, const Words& words) {
                if (strip.has(v))
                    epilogue.finish(strip.sums(shared.left, v), strip.row(v), j, largest, KeptWords{words});
            });
        finish_elements(shared.left, epilogue, terms, whole, tiles, largest);
        left.end_emptying(turn);
    }
    largest.keep(epilogue.args.largest);
}

template <int most, class Epilogue>
__global__ void __launch_bounds__(sum_threads, 1)
    wide_sum_kernel(const __grid_constant__ Epilogue epilogue, const __grid_constant__ Terms<bfloat16, most> terms,
                    const __grid_constant__ Maps<most> maps, bool whole, bool usual) {
#if defined(RC_HOPPER)
    const TileShared shared;
    if (threadIdx.x == 0) {
        shared.ring().make(using_groups * warps_of_group);
        for (int half = 0; half < using_groups; ++half) shared.handover(half).make(warps_of_group, warps_of_group);
    }
    begin_ahead();
    __syncthreads();
    const SumTiles tiles(epilogue.args.rows, epilogue.args.columns);
    if (group() == 0) {
        give_registers<copying_registers>();
        if (threadIdx.x < 32 && elect_one()) fill_stages(shared.ring(), maps, tiles);
    } else if (group() <= using_groups) {
        take_registers<multiplying_registers_of_sums>();
        multiply_tiles(shared, maps.all_steps, tiles);
    } else {
        give_registers<finishing_registers>();
        if (usual)
            finish_usual_tiles(shared, epilogue, terms, tiles);
        else
            finish_tiles(shared, epilogue, terms, whole, tiles);
    }
#endif
}

template <int most, class Epilogue>
bool launch_wide_sum(const Epilogue& epilogue) {
    static_assert(sizeof(Terms<bfloat16, most>) + sizeof(Maps<most>) + sizeof(Epilogue) <= 32764,
                  "what a kernel's parameters may take");
    const auto& args = epilogue.args;
    const bool whole = epilogue.is_on_boundaries();
    const bool usual = whole && args.columns % Strip::width == 0 && args.n_identity <= 1 && epilogue.is_usual();
    if (usual && launch_broad_sum(epilogue)) return true;
    Maps<most> maps;
    if (!maps.encode_sources(args, tile_columns)) return false;
    launch_ahead<wide_sum_kernel<most, Epilogue>>(
        tile_shared_bytes, blocks_for_tiles(SumTiles::count(args.rows, args.columns)), sum_threads, epilogue,
        Terms<bfloat16, most>(args), maps, whole, usual);
    return true;
}

// False where it is not for this path; then nothing was launched.
template <class T, class Epilogue>
bool launch_sum(const Epilogue& epilogue) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        const auto& args = epilogue.args;
        if (!is_hopper(current_path()) || args.rows == 0 || args.columns == 0) return false;
        if (args.rows > std::numeric_limits<std::int32_t>::max() - tile_rows) return false;
        if (args.n_sources <= usual_terms && args.n_identity <= usual_terms)
            return launch_wide_sum<usual_terms>(epilogue);
        return args.n_sources <= many_terms && args.n_identity <= many_terms && launch_wide_sum<many_terms>(epilogue);
    } else {
        (void)epilogue;
        return false;
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

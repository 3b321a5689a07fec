// Sums of wide layers: what sum.cuh does for nearly every layer, by tiles of 128 × 256. Two warpgroups multiply 64 ×
// 256 each, so that a stage's panels are read for twice as many rows' products as by tiles of 128 columns: shared
// memory, which products read and copies write, is what those wait for. Their 128 sums a thread stay where they are
// until they are results: skips come to shared memory by copies, meanwhile, and results leave it so, from the same
// place.
//
// Invariant: sums are those of sum.cuh, bit by bit, so that either may be taken; where they would be cut, they are
// taken there. A sum that underflows from below may be −0 in the units, and there is +0, being added to a zero: so
// epilogues add +0 here.
#pragma once

#include "kernels/cuda/hopper/passes.cuh"
#include "kernels/cuda/hopper/source_stages.cuh"
#include "kernels/cuda/hopper/words.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int broad_columns = 256, broad_boxes = broad_columns / box_width, broad_stages = 3;
using BroadTiles = Tiles<broad_columns>;
using BroadRing = Ring<(2 + broad_boxes) * box_bytes>;

// Warpgroups 1 and 2 multiply. Of warpgroup 0, a warp has stages filled, one carries skips and results, and two prepare
// what the epilogue reads of columns, or of saved activations.
constexpr int preparing_warps = 2;
constexpr int helping_registers = 104, multiplying_registers_of_broad = 200;
static_assert(helping_registers + using_groups * multiplying_registers_of_broad <=
                  registers_of_groups(1 + using_groups),
              "a block's registers");

// Of the tile's skip and, in its place, of its results: a box for each 64 columns of each warpgroup's 64 rows.
constexpr std::uint32_t half_bytes = broad_boxes * box_bytes, room_bytes = using_groups * half_bytes;
// A float for each column, or a bit for each of the tile's numbers.
constexpr std::uint32_t prepared_bytes = tile_rows * broad_columns / 8;
constexpr std::uint32_t broad_shared_bytes = broad_stages * BroadRing::stage_size + room_bytes + prepared_bytes +
                                             barrier_bytes(broad_stages) + Handover::bytes + using_groups * 16;
static_assert(broad_shared_bytes <= 227 * 1024, "what a block may have");

struct BroadShared {
    Shared stages, room, prepared, barriers;
    __device__ __forceinline__ BroadShared()
        : stages(shared_memory()),
          room(stages + broad_stages * BroadRing::stage_size),
          prepared(room + room_bytes),
          barriers(prepared + prepared_bytes) {}
    __device__ __forceinline__ BroadRing ring() const { return {stages, barriers, broad_stages}; }
    __device__ __forceinline__ Handover handover() const { return Handover(barriers + barrier_bytes(broad_stages)); }
    __device__ __forceinline__ Shared box(int half, int index) const {
        return room + static_cast<std::uint32_t>(half) * half_bytes + static_cast<std::uint32_t>(index) * box_bytes;
    }
    // A half's skip is there, or there is none, and its room is empty; its results are there.
    __device__ __forceinline__ Shared skip_is_there(int half) const { return half_barriers(half); }
    __device__ __forceinline__ Shared results_are_there(int half) const { return half_barriers(half) + 8; }

    // By one thread, before all others meet it.
    __device__ __forceinline__ void make_barriers() const {
        for (int half = 0; half < using_groups; ++half) {
            barrier_init(skip_is_there(half), 1);
            barrier_init(results_are_there(half), group_threads);
        }
        // These end in the fence that all of them need.
        handover().make(preparing_warps, using_groups * warps_of_group);
        ring().make(using_groups * warps_of_group);
    }

private:
    __device__ __forceinline__ Shared half_barriers(int half) const {
        return barriers + barrier_bytes(broad_stages) + Handover::bytes + static_cast<std::uint32_t>(half) * 16;
    }
};

struct BroadMaps {
    Maps<usual_terms> sources;
    CUtensorMap skip, results;
    bool has_skip;

    // False where rows do not lie as copies need them.
    template <class Args>
    bool encode_all(const Args& args) {
        has_skip = args.n_identity > 0;
        return sources.encode_sources(args, broad_columns) &&
               (!has_skip || encode(skip, args.identity[0], args.rows, args.columns, group_rows)) &&
               encode(results, args.out, args.rows, args.columns, group_rows);
    }
};

// Skips on their way here, and results on theirs, which leave the room empty for the next tile's skip.
__device__ __forceinline__ void carry_rows(const BroadShared& shared, const BroadMaps& maps, BroadTiles tiles) {
    Place turn;
    for (; tiles.exists(); tiles.advance()) {
        const std::int32_t row = static_cast<std::int32_t>(tiles.first_row()),
                           column = static_cast<std::int32_t>(tiles.first_column());
        for (int half = 0; half < using_groups; ++half) {
            const Shared there = shared.skip_is_there(half);
            if (!maps.has_skip) {
                arrive(there);
                continue;
            }
            arrive_expecting(there, half_bytes);
            for (int box = 0; box < broad_boxes; ++box)
                copy_box(shared.box(half, box), maps.skip, column + box * box_width, row + half * group_rows, there);
        }
        for (int half = 0; half < using_groups; ++half) {
            wait(shared.results_are_there(half), turn.parity());
            for (int box = 0; box < broad_boxes; ++box)
                store_box(maps.results, column + box * box_width, row + half * group_rows, shared.box(half, box));
            commit_boxes();
        }
        wait_until_boxes_are_read();
        turn.advance(1);
    }
}

using Pair = Stretch<float, 2>;  // of neighbours

// Of the preparing warps' threads, this one's number.
__device__ __forceinline__ int preparing_thread() {
    return static_cast<int>(threadIdx.x) - (warps_of_group - preparing_warps) * 32;
}
// Of what was prepared: a column's float, or the bits of a row, eight columns a byte.
__device__ __forceinline__ Shared place_of_columns(Shared prepared, int column) {
    return prepared + static_cast<std::uint32_t>(column) * sizeof(float);
}
__device__ __forceinline__ Shared place_of_bits(Shared prepared, int row) {
    return prepared + static_cast<std::uint32_t>(row) * (broad_columns / 8);
}

// One tile's results, in the place of its skip. `Epilogue` has what it reads of a row's 64 columns, `of_row`, and of
// two columns, `of_columns`, as it prepared them, and `finish_pair`: of a chunk of eight of the 64, two from a column
// on. The largest magnitudes are kept as in `finish_usual_tiles`. A box is read before any of it is written, as shared
// memory answers late. One that `KeepsPasses` takes each thread's word of a box, `leave_passes`.
template <class Epilogue>
__device__ __forceinline__ void finish_broad_tile(const BroadShared& shared, const Epilogue& epilogue, bool has_skip,
                                                  const BroadTiles& tiles, const float (&sums)[128],
                                                  std::uint32_t& largest) {
    constexpr int chunks = box_width / 8;
    const int row = first_row_of_warp() + lane() / 4, pair = 2 * (lane() % 4);
    const int columns_left = static_cast<int>(epilogue.args.columns - tiles.first_column());
    // Without their signs; of rows that are not there, nothing.
    std::uint32_t magnitude[2];
    for (int down = 0; down < 2; ++down)
        magnitude[down] = tiles.first_row() + row + 8 * down < epilogue.args.rows ? 0x7fff7fff : 0;
    const Shared first = shared.box(half_of_group(), 0) + static_cast<std::uint32_t>(row % group_rows) * box_row +
                         static_cast<std::uint32_t>(pair) * sizeof(bfloat16);
    // As copies swizzle, 16 bytes change places within eight rows; eight rows on, the same ones.
    const std::uint32_t swizzle = static_cast<std::uint32_t>(row % 8) * 16;
#pragma unroll
    for (int box = 0; box < broad_boxes; ++box) {
        const auto place = [&](int c, int down) {
            return first + (static_cast<std::uint32_t>(c) * 16 ^ swizzle) +
                   static_cast<std::uint32_t>(box) * box_bytes + static_cast<std::uint32_t>(down * 8) * box_row;
        };
        typename Epilogue::OfRow of_row[2];
        typename Epilogue::OfColumns of_columns[chunks];
        std::uint32_t skip[chunks][2];
#pragma unroll
        for (int down = 0; down < 2; ++down) of_row[down] = epilogue.of_row(shared.prepared, row + 8 * down, box);
#pragma unroll
        for (int c = 0; c < chunks; ++c) {
            of_columns[c] = epilogue.of_columns(shared.prepared, box * box_width + c * 8 + pair);
#pragma unroll
            for (int down = 0; down < 2; ++down) skip[c][down] = has_skip ? load_word(place(c, down)) : nothing_twice;
        }
        PassBits passes;
#pragma unroll
        for (int c = 0; c < chunks; ++c)
#pragma unroll
            for (int down = 0; down < 2; ++down) {
                const int i = (box * chunks + c) * 4 + down * 2;
                const Pair z = epilogue.finish_pair({{sums[i], sums[i + 1]}}, numbers_of(skip[c][down]), of_columns[c],
                                                    of_row[down], c, pair);
                const std::uint32_t result = pair_of(z.at[0], z.at[1]);
                store_word(place(c, down), result);
                if (box * box_width + c * 8 < columns_left) largest = larger_of_each(largest, result & magnitude[down]);
                if constexpr (Epilogue::KeepsPasses::value) passes.add(result & 0x7fff7fff);
            }
        if constexpr (Epilogue::KeepsPasses::value)
            epilogue.leave_passes(tiles.first_row() + half_of_group() * group_rows,
                                  tiles.first_column() + box * box_width, passes.word());
    }
}

template <class Epilogue>
__device__ __forceinline__ void multiply_broad_tiles(const BroadShared& shared, const Epilogue& epilogue, int steps,
                                                     bool has_skip, BroadTiles tiles) {
    const int half = half_of_group();
    const SourceOperands operands{static_cast<Shared>(half) * group_rows * box_row};
    std::uint32_t largest = 0;
    Place place, turn;
    for (; tiles.exists(); tiles.advance()) {
        float sums[128] = {};
        multiply_stages(shared.ring(), place, 0, steps, operands, sums);
        wait(shared.skip_is_there(half), turn.parity());
        shared.handover().begin_emptying(turn);
        finish_broad_tile(shared, epilogue, has_skip, tiles, sums, largest);
        fence_stores();
        arrive(shared.results_are_there(half));
        shared.handover().end_emptying(turn);
    }
    keep_largest_of_pair(largest, epilogue.args.largest);
}

template <class Epilogue>
__device__ __forceinline__ void prepare_tiles(const BroadShared& shared, const Epilogue& epilogue, BroadTiles tiles) {
    const Handover prepared = shared.handover();
    for (Place turn; tiles.exists(); tiles.advance()) {
        epilogue.prepare(shared.prepared, tiles.first_row(), tiles.first_column(),
                         [&] { prepared.begin_filling(turn); });
        prepared.end_filling(turn);
    }
}

template <class Epilogue>
__global__ void __launch_bounds__(block_threads, 1)
    broad_sum_kernel(const __grid_constant__ Epilogue epilogue, const __grid_constant__ BroadMaps maps) {
#if defined(RC_HOPPER)
    const BroadShared shared;
    if (threadIdx.x == 0) shared.make_barriers();
    begin_ahead();
    __syncthreads();
    const BroadTiles tiles(epilogue.args.rows, epilogue.args.columns);
    if (group() == 0) {
        give_registers<helping_registers>();
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (warp == 0 && elect_one()) fill_stages(shared.ring(), maps.sources, tiles);
        if (warp == 1 && elect_one()) carry_rows(shared, maps, tiles);
        if (warp >= warps_of_group - preparing_warps) prepare_tiles(shared, epilogue, tiles);
    } else {
        take_registers<multiplying_registers_of_broad>();
        multiply_broad_tiles(shared, epilogue, static_cast<int>(maps.sources.all_steps), maps.has_skip, tiles);
    }
#endif
}

// Whether blocks are through sooner than by tiles of 128 columns, for sums of so many stages' terms: by nanoseconds of
// an H200, whose ratios are what counts. A stage of twice the columns takes less than twice the time, but epilogues are
// waited for, and a kernel's end is later.
inline bool is_sooner_broad(std::int64_t rows, std::int64_t columns, std::int64_t steps) {
    constexpr double step = 452, broad_step = 733, broad_epilogue = 600, broad_end = 3000;
    const std::int64_t at_a_time = processor_count();
    const auto rounds = [at_a_time](std::int64_t tiles) {
        return static_cast<double>((tiles + at_a_time - 1) / at_a_time);
    };
    const auto terms = static_cast<double>(steps);
    return rounds(BroadTiles::count(rows, columns)) * (terms * broad_step + broad_epilogue) + broad_end <
           rounds(Tiles<tile_columns>::count(rows, columns)) * terms * step;
}

// Of what is usual. False where it is not for such tiles; then nothing was launched. Where there are passes to be kept,
// or read, epilogue.with_passes(launch) launches one that does so.
template <class Epilogue>
bool launch_broad_sum(const Epilogue& epilogue) {
    const auto& args = epilogue.args;
    if (args.n_sources > usual_terms) return false;
    const std::int64_t steps = stages_of_sources(args);
    if (steps == 0 || steps * stage_terms > terms_in_part || !is_sooner_broad(args.rows, args.columns, steps))
        return false;
    BroadMaps maps;
    if (!maps.encode_all(args)) return false;
    const dim3 blocks = blocks_for_tiles(BroadTiles::count(args.rows, args.columns));
    const auto launch = [&](const auto& finishing) {
        launch_ahead<broad_sum_kernel<std::decay_t<decltype(finishing)>>>(broad_shared_bytes, blocks, block_threads,
                                                                          finishing, maps);
    };
    if (!epilogue.with_passes(launch)) launch(epilogue);
    return true;
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// How a batch is cut into row tiles. Rows are independent, so the cut changes speed and never a result.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/caches.h"

namespace resnetcore {

// Threads that pay for a work of so many multiply-adds: another one costs a wake and its waits at barriers, about what
// a thread computes meanwhile. Results do not depend on their number.
inline int useful_threads(std::int64_t multiply_adds, int threads) {
    constexpr std::int64_t worth_a_thread = 500'000;
    return static_cast<int>(std::clamp<std::int64_t>(multiply_adds / worth_a_thread, 1, threads));
}

// Column statistics are summed over chunks of rows that depend on the batch alone, then combined in order. A chunk is a
// power of two, so that it divides a stretch of a weight gradient.
inline std::int64_t statistics_chunk(std::int64_t rows) {
    std::int64_t chunk = 8;
    while (chunk < 64 && chunk * 8 < rows) chunk *= 2;
    return chunk;
}

// The cost model of a tile. Where all weights stay in L2, short tiles keep the activations there too; where they do
// not, every tile streams the weights once, and the tile is as tall as half of L2 allows for one activation.
inline std::int64_t tile_rows(std::int64_t rows, std::int64_t weight_bytes, std::int64_t widest_row_bytes, int threads,
                              std::int64_t multiple) {
    const std::int64_t level2 = caches().level2;
    const bool weights_stay = weight_bytes <= level2;
    std::int64_t target = weights_stay ? 128 : std::clamp<std::int64_t>(level2 / 2 / widest_row_bytes, 64, 512);
    target = std::min(target, (rows + threads - 1) / threads);
    // Equal tiles, so that no thread is left with one more than the others.
    std::int64_t tiles = (rows + target - 1) / target;
    tiles = (tiles + threads - 1) / threads * threads;
    const std::int64_t equal = (rows + tiles - 1) / tiles;
    return std::max<std::int64_t>((equal + multiple - 1) / multiple * multiple, 1);
}

}  // namespace resnetcore

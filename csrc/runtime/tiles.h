// How a batch is cut into row tiles, and into chunks whose statistics are summed on their own. Rows are independent:
// the tiles change speed and never a result, and the chunks depend on the batch alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"
#include "runtime/cost_model.h"
#include "topology/plan.h"

namespace resnetcore {

// Column statistics are summed over chunks of rows that depend on the batch alone, then combined in order. A chunk is a
// power of two, so that it divides a stretch of a weight gradient.
inline std::int64_t statistics_chunk(std::int64_t rows) {
    std::int64_t chunk = 8;
    while (chunk < 64 && chunk * 8 < rows) chunk *= 2;
    return chunk;
}
// The most chunks of any batch of up to so many rows: a little less than one of them may be cut into more.
inline std::int64_t most_statistics_chunks(std::int64_t rows) { return std::max<std::int64_t>(8, (rows + 63) / 64); }

// Whether a phase ends in statistics of the whole batch.
bool ends_in_sums(const Phase& phase);

// How kernels take rows.
struct RowUnits {
    int block;       // KernelTable::row_block
    bool stretches;  // whether they take several stretches of a gradient together
};
template <class T>
RowUnits row_units(const KernelTable<T>& kernels) {
    return {kernels.row_block, kernels.most_laid_out > 0};
}

// Whether threads of the host divide the columns of every step of an inference plan, and not its rows.
bool divides_columns(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes, RowUnits units);
// The same of the products of a plan whose buffers are of all rows, which read `weight_bytes` in all.
bool divides_training_columns(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes,
                              std::int64_t element_size, int product_speed);

// What a thread has of so many panels, or chunks of rows, or columns, where all have about as many.
struct Share {
    std::int64_t first, last;
};
inline Share share_of(std::int64_t count, int thread, int threads) {
    return {count * thread / threads, count * (thread + 1) / threads};
}

// The tiles of a plan on the host; `weight_bytes` are all that a tile reads.
Tile tile_of(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes, std::int64_t element_size,
             RowUnits units);

}  // namespace resnetcore

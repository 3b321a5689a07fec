// The cost model: what a step of this shape should cost on this host, and so on how many threads it runs, in tiles of
// how many rows, and which way it takes its weight gradients.
//
// Invariant: what it says changes speed and memory, never a result; but for a device's kernels, which may round
// otherwise and are only ever taken because they were measured.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "runtime/caches.h"

namespace resnetcore {

// Threads that pay for so many multiply-adds, `product_speed` (KernelTable) of them at once: another one costs a wake
// and its waits at barriers, about what a thread computes meanwhile.
inline int useful_threads(std::int64_t multiply_adds, int product_speed, int threads) {
    constexpr std::int64_t worth_a_thread = 500'000;
    return static_cast<int>(std::clamp<std::int64_t>(multiply_adds / product_speed / worth_a_thread, 1, threads));
}

// Whether threads are to divide the columns of every step and meet after each, instead of the rows: then each weight is
// read by one of them. The rows must be so few that it is the weights they wait for, or that they are not to be divided
// (`row_block` of KernelTable), and a step's worth a barrier.
inline bool columns_pay(std::int64_t rows, std::int64_t weight_bytes, std::int64_t steps, int threads, int row_block) {
    constexpr std::int64_t rows_of_a_thread = 4, bytes_worth_a_barrier = 384 << 10;
    const std::int64_t few = std::max<std::int64_t>(rows_of_a_thread * threads, row_block);
    return threads > 1 && rows <= few && weight_bytes >= steps * bytes_worth_a_barrier;
}

// What a plan's products take, forward and back.
struct ProductSizes {
    std::int64_t count = 0;
    std::int64_t weights = 0, results = 0;  // elements of all of them
    std::int64_t operand_bytes = 0;         // the rows that one of them reads, at most
};

// The same of a training pass. Where threads divide rows, each reads all weights for few products, and others have just
// updated most of them. Where they divide columns, a weight is read by one thread, forward by the one that updates it,
// and they meet after each product to exchange results. Where products are fast (`product_speed` of KernelTable) it is
// the weights that are waited for with more rows, too, as long as all of these stay in a core's own cache. The numbers
// were measured (docs/performance.md, "Few rows").
inline bool training_columns_pay(std::int64_t rows, const ProductSizes& products, int threads, int product_speed) {
    const bool fast = product_speed > 1, fastest = product_speed >= 8;
    const std::int64_t rows_of_a_thread = (rows + threads - 1) / threads;
    const std::int64_t cache_for_rows = caches().level2 / 8 * 5;  // beside a panel of weights, and results
    const bool few = rows_of_a_thread <= 64;
    const bool some = fast && rows_of_a_thread <= (fastest ? 256 : 96) && products.operand_bytes <= cache_for_rows;
    const std::int64_t weights_worth_a_barrier = (fastest && !few ? 320 : fast ? 48 : 12) << 10;
    return threads > 1 && (few || some) && products.weights >= products.count * weights_worth_a_barrier &&
           4 * products.weights >= 5 * products.results;
}

// Threads that pay for a training's or a tape's pass of so many multiply-adds for each row. Beside its products it
// reads weights, updates them and lays them out again, which gets no faster with products, and threads meet more often
// than in a prediction. Few rows are not worth dividing, as a register tile takes hardly longer for them than for half
// of them; their weights may still be worth a second thread. The numbers were measured on Zen 4 (docs/performance.md,
// "Few rows").
inline int useful_training_threads(std::int64_t rows, std::int64_t multiply_adds, const ProductSizes& products,
                                   int product_speed, int row_block, int threads) {
    constexpr int rows_of_one_thread = 6;
    const int speed = product_speed > 1 ? 3 * product_speed : 1;
    const bool divided =
        rows > std::max(rows_of_one_thread, row_block) || training_columns_pay(rows, products, threads, product_speed);
    return useful_threads((divided ? rows * multiply_adds : 0) + speed * products.weights, speed, threads);
}

struct Tile {
    std::int64_t rows;
    const char* reason;
};

// Rows that go through the layers together, a multiple of `multiple`: `weight_bytes` are all that they multiply, and
// `widest_row_bytes` one row of the widest activation.
Tile cheapest_tile(std::int64_t rows, std::int64_t weight_bytes, std::int64_t widest_row_bytes, int threads,
                   std::int64_t multiple);

enum class Strategy {
    by_layer,  // every δ of the batch is stored; then one pass over the weights, the optimizer in its epilogue
    by_tile,   // each tile of rows adds its share right after its δ, in the order of the tiles; then the update
};

// What the way to the weight gradients depends on, and what a tuning is remembered by.
struct StepShape {
    std::int64_t rows = 0;
    std::int64_t weights = 0;    // elements of all parameters
    std::int64_t row_width = 0;  // elements of all activations of one row
    // The same, as often as products with weights read them. Tunings are not told apart by it: their other numbers do.
    std::int64_t read_width = 0;
    std::int64_t element_size = 4;
    bool one_phase = true;  // no barrier between forward and backward: tiles can keep their activations in cache
    int threads = 1;        // that pay
    bool in_tiles = true;   // false on a device that takes all rows at once
    std::string device;     // its name, where it is not the host
};

struct Choice {
    Strategy strategy;
    int threads;
    const char* reason;
    int path = -1;  // of a device's kernels (Device::path_number); −1: its own choice
};

Choice cheapest_strategy(const StepShape& shape);
// The numbers that it compares, a line each, for people.
std::string costs(const StepShape& shape);

}  // namespace resnetcore

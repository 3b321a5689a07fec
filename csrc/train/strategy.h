// How a step takes its weight gradients. Both ways give the same bits: the choice is one of speed and memory.
#pragma once

#include <cstdint>
#include <string>

namespace resnetcore {

enum class Strategy {
    by_layer,  // every δ of the batch is stored; then one pass over the weights, the optimizer in its epilogue
    by_tile,   // each tile of rows adds its share right after its δ, in the order of the tiles; then the update
};

// What the choice depends on, and what a tuning is remembered by.
struct StepShape {
    std::int64_t rows = 0;
    std::int64_t weights = 0;    // trained matrix elements
    std::int64_t row_width = 0;  // elements of all activations of one row
    std::int64_t element_size = 4;
    bool one_phase = true;  // no barrier between forward and backward: tiles can keep their activations in cache
    int threads = 1;        // that pay by the cost model
    bool in_tiles = true;   // false on a device that takes all rows at once
};

struct Choice {
    Strategy strategy;
    int threads;
    const char* reason;
};
Choice choose_strategy(const StepShape& shape);

// What was measured on the host to be fastest for such steps: chosen from now on, instead of what the cost model says.
void remember(const StepShape& shape, Strategy strategy, int threads);

Strategy find_strategy(const std::string& name);  // "by_layer" or "by_tile"; throws ValueError
// "auto", "by_layer" or "by_tile"; forces every later step. Throws ValueError for other names.
void set_strategy(const std::string& name);
// RESNETCORE_STRATEGY at the start.
std::string get_strategy();

}  // namespace resnetcore

// Which way a step takes its weight gradients: the one that is forced, else the one that was measured to be fastest,
// else what the cost model says. Both ways give the same bits: the choice is one of speed and memory.
#pragma once

#include <string>

#include "runtime/cost_model.h"

namespace resnetcore {

Choice choose_strategy(const StepShape& shape);

// What was measured on the host to be fastest for such steps: chosen from now on, instead of what the cost model says.
void remember(const StepShape& shape, Strategy strategy, int threads);
// Likewise on the shape's device.
void remember(const StepShape& shape, int path);

Strategy find_strategy(const std::string& name);  // "by_layer" or "by_tile"; throws ValueError
// "auto", "by_layer" or "by_tile"; forces every later step. Throws ValueError for other names.
void set_strategy(const std::string& name);
// RESNETCORE_STRATEGY at the start.
std::string get_strategy();

}  // namespace resnetcore

// Which way a step takes its weight gradients: the one that is forced, else the one that was measured to be fastest,
// else what the cost model says. On the host all give the same bits: the choice is one of speed and memory. On a device
// what is measured are ways of its kernels, whose roundings may differ.
#pragma once

#include <optional>
#include <string>

#include "runtime/cost_model.h"

namespace resnetcore {

Choice choose_strategy(const StepShape& shape);

// What was measured on the host to be fastest for such steps: chosen from now on, instead of what the cost model says.
void remember(const StepShape& shape, Strategy strategy, int threads);
// Likewise on the shape's device; which RESNETCORE_CUDA_PATH overrules.
void remember(const StepShape& shape, int path);
std::optional<Choice> remembered(const StepShape& shape);
void forget(const StepShape& shape);

Strategy find_strategy(const std::string& name);  // "by_layer" or "by_tile"; throws ValueError
// "auto", "by_layer" or "by_tile"; forces every later step. Throws ValueError for other names.
void set_strategy(const std::string& name);
// RESNETCORE_STRATEGY at the start.
std::string get_strategy();

}  // namespace resnetcore

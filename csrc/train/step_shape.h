// A training step of a network as the cost model sees it.
#pragma once

#include <cstdint>

#include "runtime/cost_model.h"
#include "train/model.h"

namespace resnetcore {

// What a training plan's products take, about: one forward and one back for each layer, and one for a gate. What they
// read of rows is left out, which decides nothing of so few as are asked about.
template <class T>
ProductSizes product_sizes(const Model<T>& model, std::int64_t rows);
// A step on `rows` rows as the choice of a strategy sees it, on as many threads as pay.
template <class T>
StepShape step_shape(const Model<T>& model, std::int64_t rows);

}  // namespace resnetcore

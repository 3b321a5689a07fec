// Layers as Python describes them, and back.
#pragma once

#include <pybind11/pybind11.h>

#include "topology/layer.h"

namespace resnetcore {

Layer layer_from_dict(const pybind11::dict& description, std::int64_t number);
pybind11::dict layer_to_dict(const Layer& layer);

}  // namespace resnetcore

// Layers as Python describes them, and back.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "topology/layer.h"

namespace resnetcore {

// An int of 63 bits; a bool is one to Python, never to us.
std::int64_t integer_argument(pybind11::handle value, const std::string& what);

Layer layer_from_dict(const pybind11::dict& description, std::int64_t number);
pybind11::dict layer_to_dict(const Layer& layer);

}  // namespace resnetcore

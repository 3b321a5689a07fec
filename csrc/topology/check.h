#pragma once

#include "topology/layer.h"

namespace resnetcore {

// Throws ShapeError or ValueError, naming the layer, unless every width, skip and rate of `topology` makes sense.
void check_topology(const Topology& topology);

}  // namespace resnetcore

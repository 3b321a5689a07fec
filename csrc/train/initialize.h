#pragma once

#include <cstdint>
#include <vector>

#include "topology/parameters.h"

namespace resnetcore {

// The initial value of one parameter, row-major: the same numbers for a seed on every machine.
std::vector<double> initial_value(const Topology& topology, const ParameterList& list, int id, std::uint64_t seed);

}  // namespace resnetcore

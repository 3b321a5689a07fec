// A network's topology as the JSON that python/resnetcore/_topology_text.py writes.
#pragma once

#include <cstdint>
#include <string>

#include "topology/layer.h"

namespace resnetcore {

struct NetworkText {
    Topology topology;  // of fixed skips the shapes are known, and not the matrices
    std::string dtype, matmul_precision;
    std::uint64_t seed = 0;
};

// A topology that passes check_topology. Throws CheckpointError.
NetworkText read_topology(const std::string& text);

}  // namespace resnetcore

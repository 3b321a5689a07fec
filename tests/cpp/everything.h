// A network with every kind of step that a plan knows.
#pragma once

#include "math/activation.h"
#include "topology/layer.h"

namespace resnetcore {

constexpr std::int64_t inputs = 19, width = 37, classes = 5;

inline Topology everything() {
    Topology topology;
    topology.inputs = inputs;
    Layer hidden;
    hidden.width = width;
    hidden.activation = find_activation("relu");
    topology.layers.assign(6, hidden);
    topology.layers[1].batch_norm = true;
    topology.layers[2].skips = {{2, SkipKind::identity, 0, 0, {}}};
    topology.layers[3].skips = {{2, SkipKind::learned, 0, 0, {}}};
    topology.layers[3].dropout = topology.layers[3].branch_dropout = 0.25;
    topology.layers[4].batch_norm = topology.layers[4].pre = true;
    topology.layers[4].activation = find_activation("gelu");
    topology.layers[5].gate = true;
    Layer last;
    last.width = classes;
    last.activation = find_activation("identity");
    topology.layers.push_back(last);
    return topology;
}

}  // namespace resnetcore

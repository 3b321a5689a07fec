// A network as data. Nothing here is checked: see check.h, which every topology passes before it is used.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace resnetcore {

enum class SkipKind { identity, learned, fixed };

struct Skip {
    std::int64_t back = 2;  // counted back from the layer; 1 would be the normal path
    SkipKind kind = SkipKind::identity;
    std::int64_t rows = 0, columns = 0;  // of the matrix, where the user fixed one
    std::vector<double> matrix;          // row-major
};

enum class Initialization { by_activation, he, glorot, lecun, zero };
// Those that have a name; by_activation is what no name means.
inline constexpr std::pair<const char*, Initialization> initializations[] = {{"he", Initialization::he},
                                                                             {"glorot", Initialization::glorot},
                                                                             {"lecun", Initialization::lecun},
                                                                             {"zero", Initialization::zero}};

struct Layer {
    std::int64_t width = 0;
    int activation = 0;  // index into Activations
    bool batch_norm = false;
    bool bias = true;
    bool pre = false;   // pre-activation: a = g(norm(a_prev)) W + b + Σ skips
    bool gate = false;  // transform gate: a = T ⊙ h + (1 − T) ⊙ a_prev
    double dropout = 0, branch_dropout = 0;
    std::vector<Skip> skips;  // by rising `back`
    Initialization initialization = Initialization::by_activation;
    double init_scale = 1;  // multiplies the initial weight of the normal path
    double norm_init = 1;   // γ at the start
    double gate_bias = -2;

    // A layer whose normal path is normalised after its product has no use for a bias: the norm's shift is one.
    bool has_bias() const { return bias && !(batch_norm && !pre); }
};

struct Topology {
    std::int64_t inputs = 0;
    std::vector<Layer> layers;

    std::int64_t depth() const { return static_cast<std::int64_t>(layers.size()); }
    // Widths and layers count from 1; 0 is the input.
    std::int64_t width(std::int64_t layer) const { return layer == 0 ? inputs : layers[layer - 1].width; }
    const Layer& layer(std::int64_t number) const { return layers[number - 1]; }
};

}  // namespace resnetcore

// Initial weights are normal with a deviation of gain / √fan. A layer's matrices are one stacked matrix, so fan_in
// counts the inputs of all its learned sources together.
#include "train/initialize.h"

#include <cmath>
#include <string>

#include "math/activation.h"
#include "math/random.h"

namespace resnetcore {
namespace {

constexpr std::uint32_t weight_purpose = 0;

// The size of a normal path that is normalised after its product is the norm's, not the weight's; but it is one of the
// paths whose sum is to keep its size, and so counts for the others.
std::int64_t stacked_inputs(const Topology& topology, const Parameter& p) {
    const Layer& layer = topology.layer(p.layer);
    if (layer.batch_norm && !layer.pre && p.role == Role::weight) return p.rows;
    std::int64_t inputs = topology.width(p.layer - 1);
    for (const Skip& skip : layer.skips)
        if (skip.kind == SkipKind::learned) inputs += topology.width(p.layer - skip.back);
    return inputs;
}

// He et al. 2015 for the rectifier family; Glorot & Bengio 2010 where g is close to linear around zero.
Initialization by_activation(const Layer& layer) {
    const std::string name = activation_name(layer.activation);
    const bool nearly_linear = name == "identity" || name == "tanh" || name == "sigmoid";
    return nearly_linear ? Initialization::glorot : Initialization::he;
}

double deviation(Initialization scheme, double fan_in, double fan_out) {
    switch (scheme) {
        case Initialization::glorot:
            return std::sqrt(2 / (fan_in + fan_out));
        case Initialization::lecun:
            return std::sqrt(1 / fan_in);
        case Initialization::zero:
            return 0;
        default:
            return std::sqrt(2 / fan_in);
    }
}

double weight_deviation(const Topology& topology, const Parameter& p) {
    const Layer& layer = topology.layer(p.layer);
    Initialization scheme = layer.initialization;
    const bool normal_path = p.role == Role::weight;
    // A zeroed branch leaves its skips and its gate alive.
    if (scheme == Initialization::by_activation || (scheme == Initialization::zero && !normal_path))
        scheme = by_activation(layer);
    if (p.role == Role::gate_weight) scheme = Initialization::glorot;
    const double fan_in = static_cast<double>(p.role == Role::gate_weight ? p.rows : stacked_inputs(topology, p));
    const double scale = normal_path ? layer.init_scale : 1;
    return scale * deviation(scheme, fan_in, static_cast<double>(p.columns));
}

}  // namespace

std::vector<double> initial_value(const Topology& topology, const ParameterList& list, int id, std::uint64_t seed) {
    const Parameter& p = list.all[id];
    const Layer& layer = topology.layer(p.layer);
    std::vector<double> value(p.size(), 0.0);
    if (p.skip && p.skip->kind == SkipKind::fixed) return p.skip->matrix;
    if (p.role == Role::gate_bias) value.assign(value.size(), layer.gate_bias);
    if (p.role == Role::norm_weight) value.assign(value.size(), layer.norm_init);
    if (p.role == Role::running_var) value.assign(value.size(), 1.0);
    if (!p.is_matrix()) return value;
    const double sigma = weight_deviation(topology, p);
    const PhiloxKey key{seed, weight_purpose, static_cast<std::uint32_t>(id)};
    if (sigma != 0)
        for (std::size_t i = 0; i < value.size(); ++i) value[i] = sigma * normal(key, i);
    return value;
}

}  // namespace resnetcore

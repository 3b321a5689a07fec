#include "topology/parameters.h"

namespace resnetcore {

ParameterList list_parameters(const Topology& topology) {
    ParameterList list;
    for (std::int64_t number = 1; number <= topology.depth(); ++number) {
        const Layer& layer = topology.layer(number);
        const std::string prefix = std::to_string(number) + ".";
        const std::int64_t inner = topology.width(number - 1), width = layer.width;
        auto add = [&](const std::string& name, Role role, std::int64_t rows, std::int64_t columns, bool trained = true,
                       const Skip* skip = nullptr) {
            list.all.push_back({prefix + name, role, number, rows, columns, trained, skip});
            return static_cast<int>(list.all.size()) - 1;
        };
        LayerParameters own;
        own.weight = add("weight", Role::weight, inner, width);
        if (layer.has_bias()) own.bias = add("bias", Role::bias, 0, width);
        for (const Skip& skip : layer.skips) {
            const bool weighted = skip.kind != SkipKind::identity;
            own.skips.push_back(weighted ? add("skip." + std::to_string(skip.back) + ".weight", Role::skip_weight,
                                               topology.width(number - skip.back), width,
                                               skip.kind == SkipKind::learned, &skip)
                                         : -1);
        }
        if (layer.batch_norm) {
            const std::int64_t normalised = layer.pre ? inner : width;
            own.norm_weight = add("norm.weight", Role::norm_weight, 0, normalised);
            own.norm_bias = add("norm.bias", Role::norm_bias, 0, normalised);
            own.running_mean = add("norm.running_mean", Role::running_mean, 0, normalised, false);
            own.running_var = add("norm.running_var", Role::running_var, 0, normalised, false);
        }
        if (layer.gate) {
            own.gate_weight = add("gate.weight", Role::gate_weight, inner, width);
            own.gate_bias = add("gate.bias", Role::gate_bias, 0, width);
        }
        list.layers.push_back(own);
    }
    return list;
}

}  // namespace resnetcore

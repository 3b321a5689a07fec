#include "topology/parameters.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

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

int find_parameter(const ParameterList& list, const std::string& name, const char* operation) {
    for (std::size_t id = 0; id < list.all.size(); ++id)
        if (list.all[id].name == name) return static_cast<int>(id);
    std::string known;
    for (std::size_t id = 0; id < list.all.size() && id < 12; ++id) known += (id ? ", " : "") + list.all[id].name;
    if (list.all.size() > 12) known += ", …";
    throw ValueError(std::string(operation) + ": the network has no '" + name + "'; it has " + known);
}

template <class Element>
void check_values(const Parameter& parameter, const Element* values, const char* operation) {
    const auto all = [&](auto holds) { return std::all_of(values, values + parameter.size(), holds); };
    const std::string what = std::string(operation) + ": '" + parameter.name + "'";
    if (parameter.role == Role::running_var && !all([](Element v) { return v >= 0; }))
        throw ValueError(what + ", a variance, must be at least 0");
    const bool fixed = parameter.skip && parameter.skip->kind == SkipKind::fixed;
    if (fixed && !all([](Element v) { return std::isfinite(v); }))
        throw ValueError(what + ", the matrix of a fixed skip, must be finite");
}

template void check_values(const Parameter&, const float*, const char*);
template void check_values(const Parameter&, const double*, const char*);

}  // namespace resnetcore

// What a topology has to store: every trained array and every buffer, in the order in which layers read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/layer.h"

namespace resnetcore {

enum class Role {
    weight,
    skip_weight,
    gate_weight,
    bias,
    gate_bias,
    norm_weight,
    norm_bias,
    running_mean,
    running_var
};

// A matrix (rows, columns), stored packed, or a vector (rows == 0) of `columns` elements.
struct Parameter {
    std::string name;
    Role role;
    std::int64_t layer = 0;
    std::int64_t rows = 0, columns = 0;
    bool trained = true;
    const Skip* skip = nullptr;  // of a skip weight; lives in the topology

    bool is_matrix() const { return rows > 0; }
    std::int64_t size() const { return is_matrix() ? rows * columns : columns; }
};

// Where a layer's arrays are in the list of parameters; −1 where it has none. `skips` runs parallel to Layer::skips.
struct LayerParameters {
    int weight = -1, bias = -1, gate_weight = -1, gate_bias = -1;
    int norm_weight = -1, norm_bias = -1, running_mean = -1, running_var = -1;
    std::vector<int> skips;
};

struct ParameterList {
    std::vector<Parameter> all;
    std::vector<LayerParameters> layers;  // layers[0] belongs to layer 1
};

ParameterList list_parameters(const Topology& topology);

// The index of a name. Throws ValueError, beginning with `operation`, for one that is not there.
int find_parameter(const ParameterList& list, const std::string& name, const char* operation);

// A variance is not negative, and a fixed skip finite: ValueError otherwise. `values` are all of the parameter's.
template <class Element>
void check_values(const Parameter& parameter, const Element* values, const char* operation);

extern template void check_values(const Parameter&, const float*, const char*);
extern template void check_values(const Parameter&, const double*, const char*);

}  // namespace resnetcore

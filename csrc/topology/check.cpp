#include "topology/check.h"

#include <cmath>
#include <set>

#include "base/error.h"
#include "base/text.h"

namespace resnetcore {
namespace {

// More than any matrix that fits in memory: keeps every later product of two sizes inside 63 bits.
constexpr std::int64_t max_width = std::int64_t{1} << 31;

std::string name(std::int64_t layer) { return layer == 0 ? "the input (layer 0)" : "layer " + std::to_string(layer); }

std::string of_width(const Topology& t, std::int64_t layer) {
    return name(layer) + " of width " + std::to_string(t.width(layer));
}

void check_width(const std::string& what, std::int64_t width) {
    if (width < 1 || width > max_width)
        throw ShapeError("Network: " + what + " must have a width of 1 to 2147483648, got " + std::to_string(width));
}

void check_rate(std::int64_t number, const char* what, double rate) {
    if (!(rate >= 0 && rate < 1))
        throw ValueError("Network: " + name(number) + ": " + what + " must be in [0, 1), got " + number_text(rate));
}

void check_finite(std::int64_t number, const char* what, double value) {
    if (!std::isfinite(value))
        throw ValueError("Network: " + name(number) + ": " + what + " must be finite, got " + number_text(value));
}

void check_skip(const Topology& t, std::int64_t number, const Skip& skip) {
    if (skip.back < 2)
        throw ValueError("Network: " + name(number) +
                         ": a skip counts layers back from 2 (1 is the normal path), got " + std::to_string(skip.back));
    if (skip.back > number)
        throw ValueError("Network: " + name(number) + ": a skip of " + std::to_string(skip.back) +
                         " layers reaches before the input; the furthest it can reach is " + std::to_string(number));
    const std::int64_t from = number - skip.back;
    if (skip.kind == SkipKind::identity && t.width(from) != t.width(number))
        throw ShapeError("Network: the identity skip from " + of_width(t, from) + " to " + of_width(t, number) +
                         " needs equal widths; use skips={" + std::to_string(skip.back) +
                         ": \"learned\"} for a learned projection");
    if (skip.kind != SkipKind::fixed) return;
    if (skip.rows != t.width(from) || skip.columns != t.width(number))
        throw ShapeError("Network: the fixed skip from " + of_width(t, from) + " to " + of_width(t, number) +
                         " needs a matrix of shape (" + std::to_string(t.width(from)) + ", " +
                         std::to_string(t.width(number)) + "), got (" + std::to_string(skip.rows) + ", " +
                         std::to_string(skip.columns) + ")");
}

void check_layer(const Topology& t, std::int64_t number) {
    const Layer& layer = t.layer(number);
    check_width(name(number), layer.width);
    check_rate(number, "dropout", layer.dropout);
    check_rate(number, "branch_dropout", layer.branch_dropout);
    check_finite(number, "init_scale", layer.init_scale);
    check_finite(number, "norm_init", layer.norm_init);
    check_finite(number, "gate_bias", layer.gate_bias);
    if (layer.gate && layer.pre)
        throw ValueError("Network: " + name(number) + ": gate=True and pre=True cannot be combined; choose one");
    if (layer.gate && t.width(number - 1) != layer.width)
        throw ShapeError("Network: the transform gate of " + of_width(t, number) + " carries " +
                         of_width(t, number - 1) + " and needs equal widths; put a plain layer in between");
    std::set<std::int64_t> seen;
    for (const Skip& skip : layer.skips) {
        check_skip(t, number, skip);
        if (!seen.insert(skip.back).second)
            throw ValueError("Network: " + name(number) + " has two skips of " + std::to_string(skip.back) + " layers");
    }
}

}  // namespace

void check_topology(const Topology& topology) {
    check_width("the input", topology.inputs);
    if (topology.layers.empty()) throw ValueError("Network: at least one layer is needed, got none");
    for (std::int64_t number = 1; number <= topology.depth(); ++number)
        check_width(name(number), topology.width(number));
    for (std::int64_t number = 1; number <= topology.depth(); ++number) check_layer(topology, number);
}

}  // namespace resnetcore

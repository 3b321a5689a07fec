#include "files/topology_text.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/error.h"
#include "files/json.h"
#include "math/activation.h"
#include "topology/check.h"

namespace resnetcore {
namespace {

constexpr std::uint64_t version = 1;
// Far above any real topology.
constexpr std::size_t max_text = 1 << 25;

using Fields = std::vector<std::pair<const char*, std::function<void()>>>;

// An object with each of the fields once, in any order, but for the last one's name where that is `optional`.
void read_fields(JsonCursor& cursor, const std::string& what, const Fields& fields, bool last_is_optional = false) {
    std::set<std::string> missing;
    for (const auto& field : fields) missing.insert(field.first);
    cursor.object(what, [&](const std::string& key) {
        const auto field =
            std::find_if(fields.begin(), fields.end(), [&](const auto& known) { return key == known.first; });
        if (field == fields.end()) cursor.fail(what + " has " + shown(key) + ", which is not known");
        missing.erase(key);
        field->second();
    });
    if (last_is_optional) missing.erase(fields.back().first);
    if (!missing.empty()) throw CheckpointError(what + " lacks " + shown(*missing.begin()));
}

std::int64_t size(JsonCursor& cursor, const std::string& what) {
    const std::uint64_t value = cursor.integer(what);
    if (value > INT64_MAX) cursor.fail(what + " must be below 2**63");
    return static_cast<std::int64_t>(value);
}

std::string one_of(JsonCursor& cursor, const std::string& what, const std::vector<std::string>& known) {
    const std::string value = cursor.string(what);
    if (std::find(known.begin(), known.end(), value) == known.end()) cursor.fail(what + " has no " + shown(value));
    return value;
}

int activation(JsonCursor& cursor, const std::string& what) {
    if (cursor.null()) return find_activation("identity");
    const std::string name = cursor.string(what);
    const int id = find_activation(name);
    if (id < 0) cursor.fail(what + ": unknown activation " + shown(name));
    return id;
}

Initialization initialization(JsonCursor& cursor, const std::string& what) {
    if (cursor.null()) return Initialization::by_activation;
    const std::string given = cursor.string(what);
    for (const auto& [name, scheme] : initializations)
        if (given == name) return scheme;
    cursor.fail(what + ": unknown initialisation " + shown(given));
}

bool batch_norm(JsonCursor& cursor, const std::string& what) {
    if (cursor.null()) return false;
    one_of(cursor, what, {"batch"});
    return true;
}

std::int64_t layers_back(JsonCursor& cursor, const std::string& key, const std::string& what) {
    std::int64_t back = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), back);
    // Other spellings of a number would be other keys for one skip.
    if (error != std::errc() || end != key.data() + key.size() || std::to_string(back) != key)
        cursor.fail(what + ": a skip must be counted as in '2', not " + shown(key));
    return back;
}

std::vector<Skip> skips(JsonCursor& cursor, const std::string& what) {
    std::vector<Skip> result;
    cursor.object(what, [&](const std::string& key) {
        Skip skip;
        skip.back = layers_back(cursor, key, what);
        const std::string kind = one_of(cursor, what, {"identity", "learned", "fixed"});
        skip.kind = kind == "identity" ? SkipKind::identity : kind == "learned" ? SkipKind::learned : SkipKind::fixed;
        result.push_back(std::move(skip));
    });
    std::sort(result.begin(), result.end(), [](const Skip& a, const Skip& b) { return a.back < b.back; });
    return result;
}

Layer read_layer(JsonCursor& cursor, std::int64_t number) {
    const std::string layer_name = "layer " + std::to_string(number);
    const auto what = [&](const char* field) { return layer_name + ": " + field; };
    Layer layer;
    read_fields(cursor, layer_name,
                {{"width", [&] { layer.width = size(cursor, what("width")); }},
                 {"activation", [&] { layer.activation = activation(cursor, what("activation")); }},
                 {"skips", [&] { layer.skips = skips(cursor, what("skips")); }},
                 {"norm", [&] { layer.batch_norm = batch_norm(cursor, what("norm")); }},
                 {"bias", [&] { layer.bias = cursor.boolean(what("bias")); }},
                 {"pre", [&] { layer.pre = cursor.boolean(what("pre")); }},
                 {"gate", [&] { layer.gate = cursor.boolean(what("gate")); }},
                 {"dropout", [&] { layer.dropout = cursor.number(what("dropout")); }},
                 {"branch_dropout", [&] { layer.branch_dropout = cursor.number(what("branch_dropout")); }},
                 {"init", [&] { layer.initialization = initialization(cursor, what("init")); }},
                 {"init_scale", [&] { layer.init_scale = cursor.number(what("init_scale")); }},
                 {"norm_init", [&] { layer.norm_init = cursor.number(what("norm_init")); }},
                 {"gate_bias", [&] { layer.gate_bias = cursor.number(what("gate_bias")); }}});
    return layer;
}

NetworkText read_network(JsonCursor& cursor) {
    NetworkText network;
    network.matmul_precision = "highest";
    Topology& topology = network.topology;
    const auto read_version = [&] {
        if (cursor.integer("the version") != version)
            cursor.fail("the topology must be of version 1; a newer resnetcore may read it");
    };
    const auto read_layers = [&] {
        cursor.array("the layers", [&] { topology.layers.push_back(read_layer(cursor, topology.depth() + 1)); });
    };
    read_fields(
        cursor, "the topology",
        {{"version", read_version},
         {"inputs", [&] { topology.inputs = size(cursor, "inputs"); }},
         {"dtype", [&] { network.dtype = one_of(cursor, "dtype", {"float32", "float64", "bfloat16"}); }},
         {"seed", [&] { network.seed = cursor.integer("the seed"); }},
         {"layers", read_layers},
         {"matmul_precision",
          [&] { network.matmul_precision = one_of(cursor, "matmul_precision", {"highest", "high", "medium"}); }}},
        true);
    cursor.finish("the topology's last '}'");
    return network;
}

// The file has no other word on the shape of a fixed matrix than the layers that it connects.
void shape_fixed_skips(Topology& topology) {
    for (std::int64_t number = 1; number <= topology.depth(); ++number)
        for (Skip& skip : topology.layers[number - 1].skips)
            if (skip.kind == SkipKind::fixed && skip.back >= 0 && skip.back <= number) {
                skip.rows = topology.width(number - skip.back);
                skip.columns = topology.width(number);
            }
}

}  // namespace

NetworkText read_topology(const std::string& text) {
    if (text.size() > max_text)
        throw CheckpointError("the topology must have at most " + std::to_string(max_text) + " characters, got " +
                              std::to_string(text.size()));
    JsonCursor cursor(text);
    NetworkText network = read_network(cursor);
    shape_fixed_skips(network.topology);
    try {
        check_topology(network.topology);
    } catch (const Error& problem) {
        throw CheckpointError(std::string("the topology cannot be used: ") + problem.what());
    } catch (const ValueError& problem) {
        throw CheckpointError(std::string("the topology cannot be used: ") + problem.what());
    }
    return network;
}

}  // namespace resnetcore

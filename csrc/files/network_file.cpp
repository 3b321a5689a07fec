#include "files/network_file.h"

#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/topology_text.h"

namespace resnetcore {
namespace {

constexpr const char* network_key = "resnetcore.network";
constexpr const char* trainer_key = "resnetcore.trainer";

bool begins_with(std::string_view text, std::string_view beginning) {
    return text.substr(0, beginning.size()) == beginning;
}

// Arrays of a training that a network has no use for.
bool belongs_to_trainer(const std::string& name) {
    return begins_with(name, "optimizer.") || begins_with(name, "best.");
}

std::string dtype_of_parameters(const std::string& dtype) { return dtype == "float64" ? "F64" : "F32"; }

std::vector<std::int64_t> shape_of(const Parameter& p) {
    if (p.is_matrix()) return {p.rows, p.columns};
    return {p.columns};
}

void check_tensors(const std::map<std::string, TensorInfo>& tensors, bool has_training, const ParameterList& list,
                   const std::string& dtype) {
    std::set<std::string> needed;
    for (const Parameter& p : list.all) {
        const auto found = tensors.find(p.name);
        if (found == tensors.end()) throw CheckpointError("lacks " + shown(p.name) + ", which the topology needs");
        const TensorInfo& info = found->second;
        if (info.dtype != dtype || info.shape != shape_of(p))
            throw CheckpointError(shown(p.name) + " must be " + dtype + " " + shape_text(shape_of(p)) + ", got " +
                                  info.dtype + " " + shape_text(info.shape));
        needed.insert(p.name);
    }
    for (const auto& [name, info] : tensors)
        if (needed.count(name) == 0 && !(has_training && belongs_to_trainer(name)))
            throw CheckpointError("has " + shown(name) + ", which the topology does not know");
}

template <class T>
std::vector<T> read_array(const SafetensorsReader& reader, const Parameter& p) {
    std::vector<T> values(static_cast<std::size_t>(p.size()));
    reader.read(reader.tensors().at(p.name), values.data());
    check_values(p, values.data(), "the network cannot be used");
    return values;
}

// A topology's fixed skips hold their matrices themselves.
template <class T>
void keep_fixed_matrices(Topology& topology, const ParameterList& list, const std::vector<std::vector<T>>& arrays) {
    for (std::size_t id = 0; id < arrays.size(); ++id) {
        const Parameter& p = list.all[id];
        if (!p.skip || p.skip->kind != SkipKind::fixed) continue;
        for (Skip& skip : topology.layers[p.layer - 1].skips)
            if (&skip == p.skip) skip.matrix.assign(arrays[id].begin(), arrays[id].end());
    }
}

template <class T>
AnyModel read_model(const SafetensorsReader& reader, NetworkText text, const ParameterList& list) {
    std::vector<std::vector<T>> arrays;
    arrays.reserve(list.all.size());
    for (const Parameter& p : list.all) arrays.push_back(read_array<T>(reader, p));
    keep_fixed_matrices(text.topology, list, arrays);
    AnyModel network = make_model(std::move(text.topology), text.seed, text.dtype, text.matmul_precision);
    network.with([&](auto& model) {
        using Element = Compute<typename std::decay_t<decltype(model)>::Scalar>;
        if constexpr (std::is_same_v<Element, T>) {
            std::vector<std::pair<int, const T*>> values;
            values.reserve(arrays.size());
            for (std::size_t id = 0; id < arrays.size(); ++id)
                values.emplace_back(static_cast<int>(id), arrays[id].data());
            model.write(values);
        }
    });
    return network;
}

StoredNetwork read_network(const SafetensorsReader& reader) {
    const auto& texts = reader.metadata();
    if (texts.count(network_key) == 0)
        throw CheckpointError("must be written by Network.save or Trainer.save, and has no topology of a network");
    const std::string& topology_text = texts.at(network_key);
    NetworkText text = read_topology(topology_text);
    const ParameterList list = list_parameters(text.topology);
    const std::string dtype = dtype_of_parameters(text.dtype);
    check_tensors(reader.tensors(), texts.count(trainer_key) > 0, list, dtype);
    if (dtype == "F64") return {read_model<double>(reader, std::move(text), list), topology_text};
    return {read_model<float>(reader, std::move(text), list), topology_text};
}

template <class T>
void save(const Model<T>& model, const StoredNetwork& stored, const std::string& path, const char* operation) {
    const auto& all = model.parameters().all;
    std::vector<std::vector<Compute<T>>> arrays;
    std::vector<std::pair<int, Compute<T>*>> wanted;
    for (std::size_t id = 0; id < all.size(); ++id) {
        arrays.emplace_back(static_cast<std::size_t>(all[id].size()));
        wanted.emplace_back(static_cast<int>(id), arrays.back().data());
    }
    model.read(wanted);
    std::vector<NamedTensor> tensors;
    tensors.reserve(all.size());
    for (std::size_t id = 0; id < all.size(); ++id)
        tensors.push_back(
            {all[id].name, dtype_of_parameters(stored.network.dtype), shape_of(all[id]), arrays[id].data()});
    write_safetensors(path, std::move(tensors), {{network_key, stored.topology_text}}, operation);
}

}  // namespace

StoredNetwork load_network(const std::string& path, const char* operation) {
    const SafetensorsReader reader(path, operation);
    try {
        return read_network(reader);
    } catch (const CheckpointError& problem) {
        throw reader.error(problem.what());
    } catch (const ValueError& problem) {
        throw reader.error(problem.what());
    }
}

void save_network(const StoredNetwork& stored, const std::string& path, const char* operation) {
    stored.network.with([&](const auto& model) { save(model, stored, path, operation); });
}

}  // namespace resnetcore

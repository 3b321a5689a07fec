// rc_network_*: files, queries, prediction, parameters in and out.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "capi/arguments.h"
#include "capi/devices.h"
#include "capi/guarded.h"
#include "capi/handles.h"

namespace resnetcore::capi {
namespace {

template <class T>
void predict(Model<T>& model, const rc_matrix* x, const rc_matrix* out, rc_stream stream) {
    const char* operation = "rc_network_predict";
    require(x, operation, "x");
    if (x->rows < 0)
        throw ShapeError(std::string(operation) + ": x must have 0 rows or more, got " + std::to_string(x->rows));
    Arguments arguments(operation, model.device(), true);
    arguments.check(x, "x", x->rows, model.topology().inputs, dtype_of<Compute<T>>, Use::read);
    arguments.check(out, "out", x->rows, model.outputs(), dtype_of<Compute<T>>, Use::written);
    arguments.check_overlaps();
    CallOrder order(arguments, stream);
    model.predict(rows_of<Compute<T>>(*x), x->rows, rows_of<Compute<T>>(*out), memory_of(*x), memory_of(*out), !stream);
    order.finish();
}

void check_lists(const char* operation, const rc_network* network, int n, const char* const* names,
                 const rc_matrix* values) {
    require(network, operation, "network");
    if (n < 0) throw ValueError(std::string(operation) + ": n must be at least 0, got " + std::to_string(n));
    if (n == 0) return;
    require(names, operation, "names");
    require(values, operation, "values");
}

// The parameters that are named, each matrix checked.
template <class T>
std::vector<int> find_all(const Model<T>& model, int n, const char* const* names, const rc_matrix* values, Use use,
                          Arguments& arguments) {
    const char* const operation = arguments.operation();
    std::vector<int> ids;
    for (int i = 0; i < n; ++i) {
        require(names[i], operation, ("names[" + std::to_string(i) + "]").c_str());
        ids.push_back(find_parameter(model.parameters(), names[i], operation));
        const Parameter& p = model.parameters().all[ids.back()];
        arguments.check(&values[i], "'" + p.name + "'", p.is_matrix() ? p.rows : 1, p.columns, dtype_of<Compute<T>>,
                        use);
    }
    arguments.check_overlaps();
    return ids;
}

// Dense arrays for these parameters, in memory of one device, and where they are.
template <class T>
struct DenseArrays {
    std::vector<AlignedArray<T>> arrays;

    DenseArrays(const ParameterList& list, const std::vector<int>& ids, Device& device = host_device()) {
        arrays.reserve(ids.size());
        for (const int id : ids) arrays.emplace_back(device, list.all[id].size());
    }
    template <class Pointer>
    std::vector<std::pair<int, Pointer>> pairs(const std::vector<int>& ids) {
        std::vector<std::pair<int, Pointer>> result;
        result.reserve(ids.size());
        for (std::size_t i = 0; i < ids.size(); ++i) result.emplace_back(ids[i], arrays[i].data());
        return result;
    }
};

template <class T>
void get_parameters(const Model<T>& model, int n, const char* const* names, const rc_matrix* values) {
    const char* operation = "rc_network_get_parameters";
    Arguments arguments(operation, model.device(), true);
    const std::vector<int> ids = find_all(model, n, names, values, Use::written, arguments);
    for (int i = 1; i < n; ++i)
        if (values[i].device != values[0].device)
            throw DeviceError(std::string(operation) + ": values must be on one device, got " +
                              device_text(values[0].device, operation, "values[0]") + " and " +
                              device_text(values[i].device, operation, "values[" + std::to_string(i) + "]"));
    CallOrder order(arguments, nullptr);
    using Element = Compute<T>;
    Device& device = arguments.any_on_gpu() ? model.device() : host_device();
    DenseArrays<Element> dense(model.parameters(), ids, device);
    model.read(dense.template pairs<Element*>(ids), arguments.any_on_gpu() ? Memory::device : Memory::host);
    for (int i = 0; i < n; ++i)
        device.kernels<Element>().narrow(values[i].rows, values[i].columns, {dense.arrays[i].data(), values[i].columns},
                                         rows_of<Element>(values[i]), nullptr);
    order.finish();
}

template <class T>
void set_parameters(Model<T>& model, int n, const char* const* names, const rc_matrix* values) {
    const char* operation = "rc_network_set_parameters";
    Arguments arguments(operation, model.device(), true);
    const std::vector<int> ids = find_all(model, n, names, values, Use::read, arguments);
    const CallOrder order(arguments, nullptr);
    DenseArrays<Compute<T>> dense(model.parameters(), ids);
    for (int i = 0; i < n; ++i) {
        const HostRows<Compute<T>> given(values[i], model.device());
        const Rows<Compute<T>> rows = given.get();
        for (std::int64_t row = 0; row < values[i].rows; ++row)
            std::copy_n(rows.data + row * rows.stride, values[i].columns,
                        dense.arrays[i].data() + row * values[i].columns);
        check_values(model.parameters().all[ids[i]], dense.arrays[i].data(), operation);
    }
    model.write(dense.template pairs<const Compute<T>*>(ids));  // which waits
}

Device& network_device(const rc_network& network) {
    return network.with([](const auto& model) -> Device& { return model.device(); });
}

void copy_to(const rc_network& network, Device& device, rc_network** copy, const char* operation) {
    require(copy, operation, "copy");
    auto result = std::make_unique<rc_network>(network);
    result->stored.network = clone_to(network.stored.network, device);
    *copy = result.release();
}

// A number about a network, or −1.
template <class Query>
std::int64_t query(const rc_network* network, const char* operation, Query about) {
    return guarded_value<std::int64_t>(-1, [&] {
        require(network, operation, "network");
        return network->with([&](const auto& model) { return static_cast<std::int64_t>(about(model)); });
    });
}

}  // namespace
}  // namespace resnetcore::capi

using namespace resnetcore;
using namespace resnetcore::capi;

rc_status rc_network_load(const char* path, rc_network** network) {
    return guarded([&] {
        require(path, "rc_network_load", "path");
        require(network, "rc_network_load", "network");
        *network = std::make_unique<rc_network>(rc_network{load_network(path, "rc_network_load")}).release();
    });
}

rc_status rc_network_save(const rc_network* network, const char* path) {
    return guarded([&] {
        require(network, "rc_network_save", "network");
        require(path, "rc_network_save", "path");
        save_network(network->stored, path, "rc_network_save");
    });
}

rc_status rc_network_copy(const rc_network* network, rc_network** copy) {
    return guarded([&] {
        require(network, "rc_network_copy", "network");
        copy_to(*network, network_device(*network), copy, "rc_network_copy");
    });
}

rc_status rc_network_copy_to(const rc_network* network, rc_device device, rc_network** copy) {
    return guarded([&] {
        require(network, "rc_network_copy_to", "network");
        copy_to(*network, device_of(device, "rc_network_copy_to", "device"), copy, "rc_network_copy_to");
    });
}

void rc_network_free(rc_network* network) { delete network; }

int64_t rc_network_inputs(const rc_network* network) {
    return query(network, "rc_network_inputs", [](const auto& model) { return model.topology().inputs; });
}

int64_t rc_network_outputs(const rc_network* network) {
    return query(network, "rc_network_outputs", [](const auto& model) { return model.outputs(); });
}

int64_t rc_network_layers(const rc_network* network) {
    return query(network, "rc_network_layers", [](const auto& model) { return model.topology().depth(); });
}

rc_dtype rc_network_dtype(const rc_network* network) {
    return static_cast<rc_dtype>(query(network, "rc_network_dtype", [](const auto& model) {
        return dtype_of<Compute<typename std::decay_t<decltype(model)>::Scalar>>;
    }));
}

rc_device rc_network_device(const rc_network* network) {
    return static_cast<rc_device>(
        query(network, "rc_network_device", [](const auto& model) { return number_of(model.device()); }));
}

rc_status rc_network_predict_on(const rc_network* network, const rc_matrix* x, rc_matrix* out, rc_stream stream) {
    return guarded([&] {
        require(network, "rc_network_predict", "network");
        network->with([&](auto& model) { predict(model, x, out, stream); });
    });
}

rc_status rc_network_predict(const rc_network* network, const rc_matrix* x, rc_matrix* out) {
    return rc_network_predict_on(network, x, out, nullptr);
}

int64_t rc_network_parameter_count(const rc_network* network) {
    return query(network, "rc_network_parameter_count",
                 [](const auto& model) { return model.parameters().all.size(); });
}

rc_status rc_network_parameter(const rc_network* network, int64_t index, rc_parameter* parameter) {
    return guarded([&] {
        const char* operation = "rc_network_parameter";
        require(network, operation, "network");
        require(parameter, operation, "parameter");
        const std::vector<Parameter>& all =
            network->with([](const auto& model) -> const auto& { return model.parameters().all; });
        if (index < 0 || index >= static_cast<int64_t>(all.size()))
            throw ValueError(std::string(operation) + ": index must be from 0 to " + std::to_string(all.size() - 1) +
                             ", got " + std::to_string(index));
        const Parameter& p = all[index];
        *parameter = {p.name.c_str(), p.is_matrix() ? p.rows : 1, p.columns, p.is_matrix() ? 2 : 1, p.trained};
    });
}

rc_status rc_network_get_parameters(const rc_network* network, int n, const char* const* names, rc_matrix* values) {
    return guarded([&] {
        check_lists("rc_network_get_parameters", network, n, names, values);
        network->with([&](const auto& model) { get_parameters(model, n, names, values); });
    });
}

rc_status rc_network_set_parameters(rc_network* network, int n, const char* const* names, const rc_matrix* values) {
    return guarded([&] {
        check_lists("rc_network_set_parameters", network, n, names, values);
        network->with([&](auto& model) { set_parameters(model, n, names, values); });
    });
}

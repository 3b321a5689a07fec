// resnetcore._core.Network: parameters in and out, prediction, gradients.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <type_traits>

#include "base/error.h"
#include "base/text.h"
#include "bindings/array.h"
#include "bindings/batch_arguments.h"
#include "bindings/layer_dict.h"
#include "bindings/network_object.h"
#include "bindings/register.h"
#include "bindings/without_gil.h"
#include "math/normalisation.h"
#include "runtime/stream_order.h"
#include "train/training.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

NetworkObject make_network(py::handle inputs, const py::sequence& layers, std::uint64_t seed, const std::string& dtype,
                           const std::string& matmul, const std::string& device_name) {
    Device& device = device_named(device_name);
    Topology topology;
    topology.inputs = integer_argument(inputs, "Network: inputs");
    for (const py::handle layer : layers)
        topology.layers.push_back(layer_from_dict(layer.cast<py::dict>(), topology.depth() + 1));
    return {make_model(std::move(topology), seed, dtype, matmul, device)};
}

NetworkObject clone(const NetworkObject& n, const std::optional<std::string>& device_name) {
    const WithoutGil release;
    if (device_name) return {clone_to(n, find_device(*device_name))};
    return {n.with([&](const auto& model) { return clone_to(n, model.device()); })};
}

std::vector<std::string> names(const ParameterList& list, bool trained) {
    std::vector<std::string> result;
    for (const Parameter& p : list.all)
        if (p.trained == trained) result.push_back(p.name);
    return result;
}

// The network's device where results are to be in its memory, else null.
template <class T>
CudaDevice* gpu_of(const Model<T>& model, bool on_device) {
    return on_device ? dynamic_cast<CudaDevice*>(&model.device()) : nullptr;
}

template <class T>
py::dict get(const Model<T>& model, const std::vector<std::string>& names, bool on_device) {
    CudaDevice* const gpu = gpu_of(model, on_device);
    py::dict arrays;
    std::vector<std::pair<int, Compute<T>*>> wanted;
    for (const std::string& name : names) {
        const int id = find_parameter(model.parameters(), name, "Network.get");
        const Parameter& p = model.parameters().all[id];
        if (gpu) {
            const auto shape = p.is_matrix() ? std::vector<std::int64_t>{p.rows, p.columns} : std::vector{p.columns};
            const auto array = DeviceArray::unset(*gpu, py::dtype::of<Compute<T>>(), shape);
            wanted.push_back({id, reinterpret_cast<Compute<T>*>(array.data)});
            arrays[py::str(name)] = array;
        } else {
            auto array = parameter_array<Compute<T>>(p);
            wanted.push_back({id, array.mutable_data()});
            arrays[py::str(name)] = array;
        }
    }
    {
        const WithoutGil release;
        model.read(wanted, gpu ? Memory::device : Memory::host);
    }
    return arrays;
}

template <class T>
void set(Model<T>& model, const py::dict& given) {
    std::vector<Dense<Compute<T>>> kept;
    std::vector<std::pair<int, const Compute<T>*>> values;
    for (const auto& [key, value] : given) {
        if (!py::isinstance<py::str>(key)) throw DTypeError("set_parameters: names must be strings");
        const std::string name = py::cast<std::string>(key);
        const int id = find_parameter(model.parameters(), name, "set_parameters");
        const Parameter& p = model.parameters().all[id];
        const InputArray array = input_array(value, "set_parameters", name.c_str());
        const std::vector<std::int64_t> expected =
            p.is_matrix() ? std::vector<std::int64_t>{p.rows, p.columns} : std::vector<std::int64_t>{p.columns};
        if (array.shape != expected)
            throw ShapeError("set_parameters: '" + name + "' must have shape " + shape_text(expected) + ", got " +
                             shape_text(array.shape));
        kept.push_back(dense<Compute<T>>(array.numpy));
        values.push_back({id, kept.back().data()});
    }
    const WithoutGil release;
    model.write(values);
}

// Part after part, as what is converted needs memory, too. Nobody waits where everything is in the order of the
// device's stream by itself: what others read, or may write to as soon as this returns, is not.
template <class T>
py::object predict_on_device(Model<T>& model, const DeviceArray& x, std::int64_t memory) {
    using C = Compute<T>;
    const std::int64_t most = [&] {
        const WithoutGil release;
        return model.rows_within(memory);
    }();
    const std::int64_t rows = x.shape[0], width = model.outputs();
    auto out = DeviceArray::unset(*x.device, py::dtype::of<C>(), {rows, width});
    StreamOrder order(*x.device, nullptr);
    for (std::int64_t begin = 0; begin < rows; begin += most) {
        const auto part = pending_matrix<C>(most < rows ? x[py::slice(begin, std::min(begin + most, rows), 1)] : x);
        const MutableRows<C> to{reinterpret_cast<C*>(out.data) + begin * width, width};
        const WithoutGil release;
        model.predict({part.data, part.stride}, part.rows, to, Memory::device, Memory::device, false);
    }
    if (x.is_ours_alone()) {  // still: another thread may have given it to somebody meanwhile
        x.note_pending();
        out.note_pending();
        order.leave();
    } else {
        const WithoutGil release;
        order.finish();
    }
    return py::cast(std::move(out));
}

template <class T>
bool takes(const Model<T>& model, py::handle x) {
    return is_plain_matrix<Compute<T>>(x, model.topology().inputs, model.device());
}

template <class T>
py::object predict(Model<T>& model, py::handle x, std::int64_t memory) {
    const std::int64_t width = model.topology().inputs;
    if (py::isinstance<DeviceArray>(x))
        return predict_on_device(model, device_matrix(x, "predict", "X", width, model.device()), memory);
    const InputMatrix<Compute<T>> input = input_matrix<Compute<T>>(x, "predict", "X", width);
    py::array_t<Compute<T>> out({input.rows, model.outputs()});
    const MutableRows<Compute<T>> rows{out.mutable_data(), model.outputs()};
    {
        const WithoutGil release;
        model.predict({input.data, input.stride}, input.rows, rows);
    }
    return out;
}

template <class T>
py::dict activations(Model<T>& model, py::handle x, bool training) {
    const InputMatrix<Compute<T>> input = input_matrix<Compute<T>>(x, "activations", "X", model.topology().inputs);
    if (input.rows == 0) throw ShapeError("activations: X must have at least one row, got 0");
    std::vector<Recorded<T>> found;
    {
        const WithoutGil release;
        found = model.activations({input.data, input.stride}, input.rows, training);
    }
    py::dict result;
    for (const Recorded<T>& one : found) {
        py::array_t<Compute<T>> array({input.rows, one.width});
        std::copy(one.values.begin(), one.values.end(), array.mutable_data());
        result[py::str(one.name)] = array;
    }
    return result;
}

template <class T>
PassResult gradients_into(Model<T>& model, const Batch<T>& batch,
                          const std::vector<std::pair<int, Compute<T>*>>& wanted) {
    const WithoutGil release;
    const auto held = model.hold();
    PassOptions options;
    options.keep_gradients = true;
    Backpropagation<T> pass(model, true);
    const PassResult result = pass.run(batch, options, nullptr);
    if (!result.finite) return result;
    for (const auto& [id, values] : wanted) model.store().unpack_like(id, pass.gradient(id), values);
    return result;
}

template <class T>
py::tuple gradients(Model<T>& model, py::handle x, py::handle y, const py::dict& loss, std::uint32_t step,
                    const char* operation) {
    const InputMatrix<Compute<T>> input =
        input_matrix<Compute<T>>(x, operation, "x", model.topology().inputs, model.device());
    check_training_rows(model.topology(), input.rows, 1, operation);
    const LossSettings settings = loss_settings(loss);
    const Targets<T> targets(y, sample_weight_of(loss), settings, input.rows, model.outputs(), operation,
                             model.device());
    Batch<T> batch;
    batch.x = {input.data, input.stride};
    batch.x_in = batch.d_x_in = input.in;
    batch.targets_in = targets.checked().in();
    batch.rows = input.rows;
    batch.target = targets.checked().get();
    batch.step = step;
    batch.seed = model.seed();
    // Arrays are made before the lock is taken and filled while it is held: another thread may train this network.
    py::dict by_name;
    std::vector<std::pair<int, Compute<T>*>> wanted;
    const auto& all = model.parameters().all;
    for (std::size_t id = 0; id < all.size(); ++id) {
        if (!all[id].trained) continue;
        auto array = parameter_array<Compute<T>>(all[id]);
        wanted.push_back({static_cast<int>(id), array.mutable_data()});
        by_name[py::str(all[id].name)] = array;
    }
    py::object d_x;
    batch.d_x.stride = model.topology().inputs;
    if (CudaDevice* const gpu = gpu_of(model, input.in == Memory::device)) {
        const auto array = DeviceArray::zeros(*gpu, py::dtype::of<Compute<T>>(), {input.rows, input.columns});
        batch.d_x.data = reinterpret_cast<Compute<T>*>(array.data);
        d_x = py::cast(array);
    } else {
        py::array_t<Compute<T>> array({input.rows, input.columns});
        batch.d_x.data = array.mutable_data();
        d_x = std::move(array);
    }
    const PassResult result = gradients_into(model, batch, wanted);
    if (!result.finite) throw non_finite(result, operation);
    return py::make_tuple(result.loss, by_name, d_x);
}

template <class T>
py::tuple evaluate(Model<T>& model, py::handle x, py::handle y, const py::dict& loss) {
    const char* operation = "evaluate";
    const InputMatrix<Compute<T>> input =
        input_matrix<Compute<T>>(x, operation, "x", model.topology().inputs, model.device());
    if (input.rows == 0) throw ShapeError("evaluate: x must have at least one row, got 0");
    const LossSettings settings = loss_settings(loss);
    const Targets<T> targets(y, sample_weight_of(loss), settings, input.rows, model.outputs(), operation,
                             host_device());
    py::array_t<Compute<T>> out({input.rows, model.outputs()});
    Compute<T>* outputs = out.mutable_data();
    double value;
    {
        const WithoutGil release;
        value = model.loss({input.data, input.stride}, input.rows, targets.checked().get(), outputs, input.in);
    }
    return py::make_tuple(value, targets.checked().weight(), out);
}

}  // namespace

void register_network(py::module_& m) {
    m.def("norm_eps", [] { return norm_eps; }, "What a batch norm adds to a variance.");
    py::class_<NetworkObject>(m, "Network", "A checked topology and its arrays; see resnetcore.Network.")
        .def(py::init(&make_network), py::arg("inputs"), py::arg("layers"), py::arg("seed") = 0,
             py::arg("dtype") = "float32", py::arg("matmul_precision") = "highest", py::arg("device") = "cpu")
        .def_property_readonly(
            "device",
            [](const NetworkObject& n) { return n.with([](const auto& model) { return model.device().name(); }); },
            "Its full name: \"cpu\", \"cuda:0\".")
        .def_property_readonly(
            "inputs",
            [](const NetworkObject& n) { return n.with([](const auto& model) { return model.topology().inputs; }); })
        .def_property_readonly(
            "outputs", [](const NetworkObject& n) { return n.with([](const auto& model) { return model.outputs(); }); })
        .def_property_readonly(
            "seed", [](const NetworkObject& n) { return n.with([](const auto& model) { return model.seed(); }); })
        .def_readonly("dtype", &NetworkObject::dtype)
        .def_readonly("matmul_precision", &NetworkObject::matmul_precision)
        .def_property_readonly("operands", &NetworkObject::operands, "What products multiply.")
        .def_property_readonly("layers",
                               [](const NetworkObject& n) {
                                   return n.with([](const auto& model) {
                                       py::list layers;
                                       for (const Layer& layer : model.topology().layers)
                                           layers.append(layer_to_dict(layer));
                                       return layers;
                                   });
                               })
        .def("parameter_names",
             [](const NetworkObject& n) {
                 return n.with([](const auto& model) { return names(model.parameters(), true); });
             })
        .def("buffer_names",
             [](const NetworkObject& n) {
                 return n.with([](const auto& model) { return names(model.parameters(), false); });
             })
        .def(
            "get",
            [](const NetworkObject& n, const std::vector<std::string>& names, bool on_device) {
                return n.with([&](const auto& model) { return get(model, names, on_device); });
            },
            py::arg("names"), py::arg("on_device") = false,
            "{name: a copy of that parameter or buffer}, all of one moment; in the GPU's memory where asked for.")
        .def(
            "set",
            [](const NetworkObject& n, const py::dict& values) { n.with([&](auto& model) { set(model, values); }); },
            py::arg("values"), "Several parameters or buffers, all or nothing.")
        .def(
            "takes",
            [](const NetworkObject& n, py::handle x) {
                return n.with([&](const auto& model) { return takes(model, x); });
            },
            py::arg("x"), "Whether `predict` takes it without a conversion or a further check.")
        .def(
            "predict",
            [](const NetworkObject& n, py::handle x, std::int64_t memory) {
                return n.with([&](auto& model) { return predict(model, x, memory); });
            },
            py::arg("x"), py::arg("memory") = Model<float>::memory_on_device,
            "Outputs in inference mode, (n, outputs). A GPU's rows are predicted so many at a time that their "
            "activations take no more memory than this, in bytes.")
        .def(
            "activations",
            [](const NetworkObject& n, py::handle x, bool training) {
                return n.with([&](auto& model) { return activations(model, x, training); });
            },
            py::arg("x"), py::arg("training") = false, "Layer outputs by number, and stored normal paths.")
        .def(
            "gradients",
            [](const NetworkObject& n, py::handle x, py::handle y, const py::dict& loss, std::uint32_t step,
               const std::string& operation) {
                return n.with([&](auto& model) { return gradients(model, x, y, loss, step, operation.c_str()); });
            },
            py::arg("x"), py::arg("y"), py::arg("loss"), py::arg("step") = 0, py::arg("operation") = "gradients",
            "(loss, {name: gradient}, d_x); nothing is updated.")
        .def(
            "evaluate",
            [](const NetworkObject& n, py::handle x, py::handle y, const py::dict& loss) {
                return n.with([&](auto& model) { return evaluate(model, x, y, loss); });
            },
            py::arg("x"), py::arg("y"), py::arg("loss"), "(loss, outputs) in inference mode.")
        .def("clone", &clone, py::arg("device") = py::none(),
             "A network with the same arrays that shares nothing with this one, on its or on another device.");
}

}  // namespace resnetcore

// resnetcore._core.Vjp: python/resnetcore/torch has made every array dense, of the dtype that is computed with; what
// does not fit is an error all the same, as a mistake there would write outside an array.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/text.h"
#include "bindings/batch_arguments.h"
#include "bindings/dense_view.h"
#include "bindings/device_array.h"
#include "bindings/layer_dict.h"
#include "bindings/register.h"
#include "bindings/stream_order.h"
#include "bindings/without_gil.h"
#include "train/vjp.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

template <class T>
using VjpPtr = std::shared_ptr<Vjp<T>>;

struct VjpObject {
    std::variant<VjpPtr<float>, VjpPtr<double>, VjpPtr<bfloat16>, VjpPtr<bfloat16x2>> vjp;
    bool flat = false;  // all that is trained is one array, the first, in which parameters lie one after the other

    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, vjp);
    }
};

// `dtype` is what activations are stored as: where that is "bfloat16" or "bfloat16x2", all that is given is float32.
VjpObject make(py::handle inputs, const py::sequence& layers, const std::string& dtype, bool training,
               bool input_gradient, const std::string& device_name, bool flat) {
    Device& device = device_named(device_name);
    Topology topology;
    topology.inputs = integer_argument(inputs, "Vjp: inputs");
    for (const py::handle layer : layers)
        topology.layers.push_back(layer_from_dict(layer.cast<py::dict>(), topology.depth() + 1));
    const VjpOptions options{training, input_gradient};
    if (dtype == "float32") return {std::make_shared<Vjp<float>>(topology, options, device), flat};
    if (dtype == "float64") return {std::make_shared<Vjp<double>>(topology, options, device), flat};
    if (dtype == "bfloat16") return {std::make_shared<Vjp<bfloat16>>(topology, options, device), flat};
    if (dtype == "bfloat16x2") return {std::make_shared<Vjp<bfloat16x2>>(topology, options, device), flat};
    throw DTypeError("Vjp: dtype must be \"float32\", \"float64\", \"bfloat16\" or \"bfloat16x2\", got \"" + dtype +
                     "\"");
}

constexpr const char *operation = "Vjp", *stack_name = "ResidualStack", *flat_name = "flat";

DenseShape shape_of(const Parameter& p) {
    if (p.is_matrix()) return {2, {p.columns, p.rows}};
    return {1, {p.columns, 1}};
}

bool is_running(const Parameter& p) { return p.role == Role::running_mean || p.role == Role::running_var; }

std::int64_t bytes_of_tape(const VjpObject& object, std::int64_t rows) {
    return object.with([&](const auto& vjp) {
        const std::int64_t row = vjp.tape_bytes_of_row();
        if (rows < 0 || (row > 0 && rows > (INT64_MAX - vjp.tape_bytes()) / row))
            throw ShapeError("Vjp: too many rows: " + std::to_string(rows));
        return vjp.tape_bytes() + rows * row;
    });
}

std::int64_t trained_size(const ParameterList& parameters) {
    std::int64_t size = 0;
    for (const Parameter& p : parameters.all) size += p.trained ? p.size() : 0;
    return size;
}

std::int64_t rows_of(py::handle x) {
    const py::object shape = x.attr("shape");
    return py::len(shape) == 2 ? py::cast<std::int64_t>(shape[py::int_(0)]) : 0;
}

template <class T>
VjpPass<T> pass_of(const VjpObject& object, const Vjp<T>& vjp, DenseViews& views, py::handle x, const py::list& values,
                   std::uint64_t seed, py::handle tape) {
    VjpPass<T> pass;
    pass.rows = rows_of(x);
    const std::int64_t inputs = vjp.topology().inputs;
    pass.x = {views.find<Compute<T>>(x, {2, {pass.rows, inputs}}, false, operation, "x"), inputs};
    pass.seed = seed;
    const auto& all = vjp.parameters().all;
    const auto apart = [&](const Parameter& p) { return !object.flat || !p.trained; };
    const std::int64_t expected = object.flat + std::count_if(all.begin(), all.end(), apart);
    if (static_cast<std::int64_t>(values.size()) != expected)
        throw ShapeError("Vjp: there must be " + std::to_string(expected) + " values, got " +
                         std::to_string(values.size()));
    pass.values.reserve(all.size());
    std::size_t next = 0;
    const Compute<T>* part = nullptr;
    if (object.flat)
        part = views.find<Compute<T>>(values[next++], {1, {trained_size(vjp.parameters()), 1}}, false, operation,
                                      flat_name);
    for (const Parameter& p : all) {
        pass.values.push_back(apart(p) ? views.find<Compute<T>>(values[next++], shape_of(p), false, operation, p.name)
                                       : part);
        if (!apart(p)) part += p.size();
    }
    if (tape.is_none()) return pass;
    const std::int64_t bytes = bytes_of_tape(object, pass.rows);
    pass.tape = views.find<std::uint8_t>(tape, {1, {bytes, 1}}, true, operation, "tape");
    if (reinterpret_cast<std::uintptr_t>(pass.tape) % 64 != 0) throw ShapeError("Vjp: tape must be aligned to 64");
    return pass;
}

// By parameter, the arrays that are given for those that `wanted` says, in order; null for the others.
template <class T, class Wanted>
std::vector<Compute<T>*> written(const Vjp<T>& vjp, DenseViews& views, const py::list& arrays, const char* what,
                                 Wanted wanted) {
    std::vector<Compute<T>*> found;
    found.reserve(vjp.parameters().all.size());
    std::size_t next = 0;
    for (const Parameter& p : vjp.parameters().all) {
        if (!wanted(p)) {
            found.push_back(nullptr);
            continue;
        }
        if (next == arrays.size()) throw ShapeError(std::string("Vjp: too few ") + what);
        found.push_back(views.find<Compute<T>>(arrays[next++], shape_of(p), true, operation, p.name));
    }
    if (next < arrays.size()) throw ShapeError(std::string("Vjp: too many ") + what);
    return found;
}

// Likewise of one array for all that is trained.
template <class T>
std::vector<Compute<T>*> parts_of(const Vjp<T>& vjp, DenseViews& views, const py::list& arrays) {
    if (arrays.size() != 1) throw ShapeError("Vjp: there must be one gradient");
    auto* part =
        views.find<Compute<T>>(arrays[0], {1, {trained_size(vjp.parameters()), 1}}, true, operation, flat_name);
    std::vector<Compute<T>*> found;
    found.reserve(vjp.parameters().all.size());
    for (const Parameter& p : vjp.parameters().all) {
        found.push_back(p.trained ? part : nullptr);
        if (p.trained) part += p.size();
    }
    return found;
}

// Where the gradients of what is trained go, by parameter.
template <class T>
std::vector<Compute<T>*> gradients_of(const VjpObject& object, const Vjp<T>& vjp, DenseViews& views,
                                      const py::list& gradients) {
    if (object.flat) return parts_of(vjp, views, gradients);
    return written(vjp, views, gradients, "gradients", [](const Parameter& p) { return p.trained; });
}

// None on the host, whose work is done when it returns.
std::unique_ptr<StreamOrder> order_of(Device& device, const py::object& stream) {
    auto* const gpu = dynamic_cast<CudaDevice*>(&device);
    return gpu ? std::make_unique<StreamOrder>(*gpu, named_stream(stream, operation)) : nullptr;
}

void run_forward(const VjpObject& object, py::handle x, const py::list& values, std::uint64_t seed, py::handle tape,
                 py::handle out, const py::list& carried, const py::object& stream) {
    object.with([&](auto& vjp) {
        using T = typename std::decay_t<decltype(vjp)>::Scalar;
        const auto order = order_of(vjp.device(), stream);
        DenseViews views(vjp.device());
        const VjpPass<T> pass = pass_of(object, vjp, views, x, values, seed, tape);
        auto* result = views.find<Compute<T>>(out, {2, {pass.rows, vjp.outputs()}}, true, operation, "out");
        const bool moves = vjp.options().training;
        const auto statistics = written(vjp, views, carried, "running statistics",
                                        [&](const Parameter& p) { return moves && is_running(p); });
        const WithoutGil release;
        vjp.forward(pass, result, statistics);
        if (order) order->finish();
    });
}

void run_backward(const VjpObject& object, py::handle x, const py::list& values, std::uint64_t seed, py::handle tape,
                  py::handle d_out, py::handle d_x, const py::list& gradients, const py::object& stream) {
    object.with([&](auto& vjp) {
        using T = typename std::decay_t<decltype(vjp)>::Scalar;
        const auto order = order_of(vjp.device(), stream);
        DenseViews views(vjp.device());
        const VjpPass<T> pass = pass_of(object, vjp, views, x, values, seed, tape);
        const auto* given = views.find<Compute<T>>(d_out, {2, {pass.rows, vjp.outputs()}}, false, operation, "d_out");
        const auto out = gradients_of(object, vjp, views, gradients);
        Compute<T>* input = nullptr;
        if (vjp.options().input_gradient)
            input = views.find<Compute<T>>(d_x, {2, {pass.rows, vjp.topology().inputs}}, true, operation, "d_x");
        const WithoutGil release;
        vjp.backward(pass, given, input, out);
        if (order) order->finish();
    });
}

void run_loss(const VjpObject& object, py::handle x, const py::list& values, std::uint64_t seed, const py::dict& loss,
              py::handle y, py::handle sample_weight, py::handle out, py::handle d_x, const py::list& gradients,
              const py::list& carried) {
    const LossSettings settings = loss_settings(loss);
    object.with([&](auto& vjp) {
        using T = typename std::decay_t<decltype(vjp)>::Scalar;
        if (!vjp.device().is_host() || !vjp.options().training)
            throw ValueError("Vjp: the loss is of a training pass on the CPU");
        DenseViews views(vjp.device());
        const VjpPass<T> pass = pass_of(object, vjp, views, x, values, seed, py::none());
        check_training_rows(vjp.topology(), pass.rows, 1, stack_name);
        check_class_weight<T>(settings, vjp.outputs(), stack_name);
        GivenTargets<T> given;
        const bool labels = py::cast<int>(y.attr("ndim")) == 1 && settings.takes_labels();
        if (labels)
            given.labels = views.find<std::int64_t>(y, {1, {pass.rows, 1}}, false, stack_name, "y");
        else
            given.values = {views.find<Compute<T>>(y, {2, {pass.rows, vjp.outputs()}}, false, stack_name, "y"),
                            vjp.outputs()};
        if (!sample_weight.is_none())
            given.sample_weight =
                views.find<Compute<T>>(sample_weight, {1, {pass.rows, 1}}, false, stack_name, "sample_weight");
        const CheckedTargets<T> targets(given, settings, pass.rows, vjp.outputs(), stack_name);
        Compute<T>* input = nullptr;
        if (vjp.options().input_gradient)
            input = views.find<Compute<T>>(d_x, {2, {pass.rows, vjp.topology().inputs}}, true, operation, "d_x");
        auto* result = views.find<Compute<T>>(out, {0, {1, 1}}, true, operation, "out");
        const auto to = gradients_of(object, vjp, views, gradients);
        const auto statistics = written(vjp, views, carried, "running statistics", is_running);
        const WithoutGil release;
        *result = static_cast<Compute<T>>(vjp.loss(pass, targets, input, to, statistics));
    });
}

py::tuple shape_tuple(const Parameter& p) {
    if (p.is_matrix()) return py::make_tuple(p.columns, p.rows);
    return py::make_tuple(p.columns);
}

py::list parameters(const VjpObject& object) {
    return object.with([&](const auto& vjp) {
        py::list all;
        if (object.flat) all.append(py::make_tuple(flat_name, py::make_tuple(trained_size(vjp.parameters())), true));
        for (const Parameter& p : vjp.parameters().all)
            if (!object.flat || !p.trained) all.append(py::make_tuple(p.name, shape_tuple(p), p.trained));
        return all;
    });
}

bool are_dense(const py::sequence& tensors) {
    DenseViews views(host_device());
    for (const py::object tensor : tensors)  // NOLINT(performance-for-range-copy): a lazy sequence keeps nothing
        if (!views.reads(tensor)) return false;
    return true;
}

}  // namespace

void register_vjp(py::module_& m) {
    m.def("are_dense", &are_dense, py::arg("tensors"),
          "Whether the CPU's kernels can read all of these as they lie, and their types let them be looked at "
          "(DLPack's C exchange API).");
    py::class_<VjpObject>(m, "Vjp",
                          "A stack of layers for a framework with gradients of its own; parameters come with each "
                          "call, in order.")
        .def(py::init(&make), py::arg("inputs"), py::arg("layers"), py::arg("dtype"), py::arg("training"),
             py::arg("input_gradient"), py::arg("device") = "cpu", py::arg("flat") = false)
        .def_property_readonly(
            "outputs", [](const VjpObject& o) { return o.with([](const auto& vjp) { return vjp.outputs(); }); },
            "Width of the last layer.")
        .def_property_readonly(
            "parameters", &parameters,
            "Name, shape, (out, in) for a matrix, and whether it is trained. Where it is flat, all that "
            "is trained is one array, which comes first.")
        .def("tape_bytes", &bytes_of_tape, py::arg("rows"), "What a forward pass leaves for backward.")
        .def("forward", &run_forward, py::arg("x"), py::arg("values"), py::arg("seed"), py::arg("tape"), py::arg("out"),
             py::arg("carried"), py::arg("stream") = py::none(),
             "Fills `tape`, `out` and, in training, `carried`: the running statistics, in order.")
        .def("backward", &run_backward, py::arg("x"), py::arg("values"), py::arg("seed"), py::arg("tape"),
             py::arg("d_out"), py::arg("d_x"), py::arg("gradients"), py::arg("stream") = py::none(),
             "Fills `gradients`, of what is trained, in order, and `d_x`, where it was asked for.")
        .def("loss", &run_loss, py::arg("x"), py::arg("values"), py::arg("seed"), py::arg("loss"), py::arg("y"),
             py::arg("sample_weight"), py::arg("out"), py::arg("d_x"), py::arg("gradients"), py::arg("carried"),
             "Fills `out`, one number, with the mean loss of a training pass on the CPU, and what both others fill but "
             "for the outputs.");
}

}  // namespace resnetcore

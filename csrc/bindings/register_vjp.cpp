// resnetcore._core.Vjp: python/resnetcore/torch has made every array dense, of the dtype that is computed with; what
// does not fit is an error all the same, as a mistake there would write outside an array.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/text.h"
#include "bindings/array.h"
#include "bindings/layer_dict.h"
#include "bindings/register.h"
#include "bindings/without_gil.h"
#include "train/vjp.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

template <class T>
using VjpPtr = std::shared_ptr<Vjp<T>>;

struct VjpObject {
    std::variant<VjpPtr<float>, VjpPtr<double>, VjpPtr<bfloat16>> vjp;

    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, vjp);
    }
};

VjpObject make(py::handle inputs, const py::sequence& layers, const std::string& dtype, bool training,
               bool input_gradient) {
    Topology topology;
    topology.inputs = integer_argument(inputs, "Vjp: inputs");
    for (const py::handle layer : layers)
        topology.layers.push_back(layer_from_dict(layer.cast<py::dict>(), topology.depth() + 1));
    const VjpOptions options{training, input_gradient};
    if (dtype == "float32") return {std::make_shared<Vjp<float>>(topology, options)};
    if (dtype == "float64") return {std::make_shared<Vjp<double>>(topology, options)};
    if (dtype == "bfloat16") return {std::make_shared<Vjp<bfloat16>>(topology, options)};
    throw DTypeError("Vjp: dtype must be \"float32\", \"float64\" or \"bfloat16\", got \"" + dtype + "\"");
}

std::vector<py::ssize_t> shape_of(const Parameter& p) {
    if (p.is_matrix()) return {p.columns, p.rows};
    return {p.columns};
}

bool is_running(const Parameter& p) { return p.role == Role::running_mean || p.role == Role::running_var; }

// The array's memory, if it is a dense one of Element in this shape.
template <class Element>
Element* checked(const py::array& array, const std::vector<py::ssize_t>& shape, bool written, const std::string& what) {
    const bool fits = py::isinstance<Dense<Element>>(array) &&
                      std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) == shape &&
                      reinterpret_cast<std::uintptr_t>(array.data()) % alignof(Element) == 0 &&
                      (array.writeable() || !written);
    if (!fits)
        throw ShapeError("Vjp: " + what + " must be a dense array of shape " +
                         shape_text(std::vector<std::int64_t>(shape.begin(), shape.end())));
    return const_cast<Element*>(static_cast<const Element*>(array.data()));
}

std::int64_t bytes_of_tape(const VjpObject& object, std::int64_t rows) {
    return object.with([&](const auto& vjp) {
        const std::int64_t row = vjp.tape_bytes_of_row();
        if (rows < 0 || (row > 0 && rows > (INT64_MAX - vjp.tape_bytes()) / row))
            throw ShapeError("Vjp: too many rows: " + std::to_string(rows));
        return vjp.tape_bytes() + rows * row;
    });
}

template <class T>
VjpPass<T> pass_of(const VjpObject& object, const Vjp<T>& vjp, const py::array& x, const std::vector<py::array>& values,
                   std::uint64_t seed, const py::array& tape) {
    VjpPass<T> pass;
    pass.rows = x.ndim() == 2 ? x.shape(0) : 0;
    const std::int64_t inputs = vjp.topology().inputs;
    pass.x = {checked<Compute<T>>(x, {pass.rows, inputs}, false, "x"), inputs};
    pass.seed = seed;
    const auto& all = vjp.parameters().all;
    if (values.size() != all.size())
        throw ShapeError("Vjp: there must be " + std::to_string(all.size()) + " values, got " +
                         std::to_string(values.size()));
    for (std::size_t id = 0; id < all.size(); ++id)
        pass.values.push_back(checked<Compute<T>>(values[id], shape_of(all[id]), false, all[id].name));
    pass.tape = checked<std::uint8_t>(tape, {bytes_of_tape(object, pass.rows)}, false, "tape");
    if (tape.size() > 0 && reinterpret_cast<std::uintptr_t>(pass.tape) % 64 != 0)
        throw ShapeError("Vjp: tape must be aligned to 64");
    return pass;
}

py::list forward(const VjpObject& object, const py::array& x, const std::vector<py::array>& values, std::uint64_t seed,
                 const py::array& tape, const py::array& out) {
    return object.with([&](auto& vjp) {
        using T = typename std::decay_t<decltype(vjp)>::Scalar;
        const VjpPass<T> pass = pass_of(object, vjp, x, values, seed, tape);
        Compute<T>* result = checked<Compute<T>>(out, {pass.rows, vjp.outputs()}, true, "out");
        py::list carried;
        std::vector<Compute<T>*> statistics;
        for (std::size_t id = 0; id < pass.values.size(); ++id) {
            const Parameter& p = vjp.parameters().all[id];
            statistics.push_back(nullptr);
            if (!is_running(p) || !vjp.options().training) continue;
            py::array_t<Compute<T>> array(p.columns);
            std::copy_n(pass.values[id], p.columns, statistics.back() = array.mutable_data());
            carried.append(array);
        }
        {
            const WithoutGil release;
            vjp.forward(pass, result, statistics);
        }
        return carried;
    });
}

py::object backward(const VjpObject& object, const py::array& x, const std::vector<py::array>& values,
                    std::uint64_t seed, const py::array& tape, const py::array& d_out,
                    const std::vector<py::array>& gradients) {
    return object.with([&](auto& vjp) -> py::object {
        using T = typename std::decay_t<decltype(vjp)>::Scalar;
        const VjpPass<T> pass = pass_of(object, vjp, x, values, seed, tape);
        const Compute<T>* given = checked<Compute<T>>(d_out, {pass.rows, vjp.outputs()}, false, "d_out");
        std::vector<Compute<T>*> out;
        std::size_t next = 0;
        for (const Parameter& p : vjp.parameters().all) {
            if (p.trained && next == gradients.size()) throw ShapeError("Vjp: too few gradients");
            out.push_back(p.trained ? checked<Compute<T>>(gradients[next], shape_of(p), true, p.name) : nullptr);
            next += p.trained;
        }
        py::object d_x = py::none();
        Compute<T>* input = nullptr;
        if (vjp.options().input_gradient) {
            py::array_t<Compute<T>> array({pass.rows, vjp.topology().inputs});
            input = array.mutable_data();
            d_x = std::move(array);
        }
        {
            const WithoutGil release;
            vjp.backward(pass, given, input, out);
        }
        return d_x;
    });
}

py::list parameters(const VjpObject& object) {
    return object.with([](const auto& vjp) {
        py::list all;
        for (const Parameter& p : vjp.parameters().all)
            all.append(py::make_tuple(p.name, py::tuple(py::cast(shape_of(p))), p.trained));
        return all;
    });
}

}  // namespace

void register_vjp(py::module_& m) {
    py::class_<VjpObject>(m, "Vjp",
                          "A stack of layers for a framework with gradients of its own; parameters come with each "
                          "call, in order.")
        .def(py::init(&make), py::arg("inputs"), py::arg("layers"), py::arg("dtype"), py::arg("training"),
             py::arg("input_gradient"))
        .def_property_readonly(
            "outputs", [](const VjpObject& o) { return o.with([](const auto& vjp) { return vjp.outputs(); }); },
            "Width of the last layer.")
        .def_property_readonly("parameters", &parameters,
                               "Name, shape, (out, in) for a matrix, and whether it is trained.")
        .def("tape_bytes", &bytes_of_tape, py::arg("rows"), "What a forward pass leaves for backward.")
        .def("forward", &forward, py::arg("x"), py::arg("values"), py::arg("seed"), py::arg("tape"), py::arg("out"),
             "Fills `tape` and `out`; the running statistics carried on, in order.")
        .def("backward", &backward, py::arg("x"), py::arg("values"), py::arg("seed"), py::arg("tape"), py::arg("d_out"),
             py::arg("gradients"),
             "Fills `gradients`, of what is trained, in order; returns the input's, where it was asked for.");
}

}  // namespace resnetcore

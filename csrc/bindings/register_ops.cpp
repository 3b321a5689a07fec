// resnetcore._core's pure functions of the host's arrays. python/resnetcore/ops.py has checked every argument; here
// pointers are taken and the GIL is released.
#include <pybind11/stl.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "bindings/array.h"
#include "bindings/block_inputs.h"
#include "bindings/register.h"
#include "bindings/without_gil.h"
#include "functional/staged_residual.h"
#include "kernels/select.h"
#include "math/activation.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

template <class T>
MutableRows<T> output(const py::array_t<T>& array) {
    return {const_cast<T*>(array.data()), array.strides(0) / static_cast<py::ssize_t>(sizeof(T))};
}

template <class T>
void forward(const py::list& sources, const py::list& weights, const py::object& bias, const py::list& identity,
             const std::string& activation, const py::array& out, const std::string& device) {
    const BlockInputs<T> in = block_inputs<T>("residual_forward", sources, weights, bias, identity, activation);
    MutableRows<T> rows;
    MutableRows<Compute<T>> wide;
    if (computes_itself<T> || py::isinstance<py::array_t<T>>(out))
        rows = output(py::reinterpret_borrow<py::array_t<T>>(out));
    else
        wide = output(py::reinterpret_borrow<py::array_t<Compute<T>>>(out));
    const WithoutGil release;
    residual_forward_on(find_device(device), in.arguments, rows, wide, "residual_forward");
}

template <class T>
struct Gradients {
    std::vector<py::array_t<T>> sources;
    std::vector<py::array_t<Compute<T>>> weights;
    py::array_t<Compute<T>> bias;
    py::array_t<T> delta;
    ResidualGradients<T> views;
};

template <class T>
Gradients<T> gradients(const char* operation, BlockInputs<T>& in, const py::object& grad, const py::object& a,
                       const std::string& device) {
    const ResidualArguments<T>& arguments = in.arguments;
    Gradients<T> out;
    for (const Matrix<T>& m : arguments.sources) {
        out.sources.emplace_back(std::vector<py::ssize_t>{m.rows, m.columns});
        out.views.sources.push_back(output(out.sources.back()));
    }
    for (const Matrix<T>& m : arguments.weights) {
        out.weights.emplace_back(std::vector<py::ssize_t>{m.rows, m.columns});
        out.views.weights.push_back(output(out.weights.back()));
    }
    out.bias = py::array_t<Compute<T>>(arguments.columns);
    if (arguments.bias) out.views.bias = out.bias.mutable_data();
    out.delta = py::array_t<T>({arguments.rows, arguments.columns});
    out.views.delta = output(out.delta);
    const Matrix<T> g = in.matrix(grad, operation, "grad"), output_of_g = in.matrix(a, operation, "a");
    const WithoutGil release;
    residual_backward_on(find_device(device), arguments, Rows<T>{g.data, g.stride},
                         Rows<T>{output_of_g.data, output_of_g.stride}, out.views, operation);
    return out;
}

// An array in C order, as the caller stores it.
template <class T>
py::array_t<T> rounded(const py::array_t<Compute<T>>& wide) {
    if constexpr (computes_itself<T>) return wide;
    py::array_t<T> result(std::vector<py::ssize_t>(wide.shape(), wide.shape() + wide.ndim()));
    const std::int64_t size = wide.size();
    kernels<T>().narrow(1, size, {wide.data(), size}, {result.mutable_data(), size}, nullptr);
    return result;
}

template <class T>
py::tuple backward(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
                   const py::object& bias, const py::list& identity, const std::string& activation,
                   const std::string& device) {
    BlockInputs<T> in = block_inputs<T>("residual_backward", sources, weights, bias, identity, activation);
    const Gradients<T> out = gradients("residual_backward", in, grad, a, device);
    py::list d_weights;
    for (const auto& wide : out.weights) d_weights.append(rounded<T>(wide));
    return py::make_tuple(out.sources, d_weights,
                          bias.is_none() ? py::object(py::none()) : py::object(rounded<T>(out.bias)), out.delta);
}

// The caller's own memory, whatever its strides.
template <class T>
Strided<T> in_place(const py::array& w) {
    const auto item = static_cast<py::ssize_t>(sizeof(T));
    const py::ssize_t last = w.ndim() - 1;
    const bool matrix = last == 1;
    return {static_cast<T*>(const_cast<void*>(w.data())), matrix ? w.shape(0) : 1, w.shape(last),
            matrix ? w.strides(0) / item : 0, w.strides(last) / item};
}

template <class T>
py::tuple update(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
                 const py::object& bias, const py::list& identity, const std::string& activation, double lr,
                 const std::string& device) {
    if (!(lr > 0 && std::isfinite(lr)))
        throw ValueError("residual_update: lr must be positive and finite, got " + number_text(lr));
    BlockInputs<T> in = block_inputs<T>("residual_update", sources, weights, bias, identity, activation);
    const Gradients<T> out = gradients("residual_update", in, grad, a, device);
    for (std::size_t s = 0; s < out.weights.size(); ++s)
        descend(in_place<T>(weights[s].cast<py::array>()), out.weights[s].data(), lr);
    if (!bias.is_none()) descend(in_place<T>(bias.cast<py::array>()), out.bias.data(), lr);
    return py::make_tuple(out.sources, out.delta);
}

template <class T>
void register_block(py::module_& m, const std::string& suffix) {
    const auto name = [&](const char* function) { return function + suffix; };
    m.def(name("residual_forward_").c_str(), &forward<T>, py::arg("sources"), py::arg("weights"), py::arg("bias"),
          py::arg("identity"), py::arg("activation"), py::arg("out"), py::arg("device") = "cpu");
    m.def(name("residual_backward_").c_str(), &backward<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("device") = "cpu");
    m.def(name("residual_update_").c_str(), &update<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("lr"),
          py::arg("device") = "cpu");
}

}  // namespace

void register_ops(py::module_& m) {
    register_block<float>(m, "f32");
    register_block<double>(m, "f64");
    register_block<bfloat16>(m, "bf16");
}

}  // namespace resnetcore

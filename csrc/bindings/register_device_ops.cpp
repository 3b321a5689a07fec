// resnetcore._core's pure functions of arrays in a GPU's memory. python/resnetcore/_blocks.py has checked every
// argument and made every result; what does not fit is an error all the same, as a mistake there would write outside an
// array.
#include <pybind11/stl.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "bindings/block_inputs.h"
#include "bindings/register.h"
#include "bindings/stream_order.h"
#include "bindings/without_gil.h"
#include "functional/stored_gradients.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

template <class T>
MutableRows<T> written(const py::handle& value, std::int64_t rows, std::int64_t columns, const Device& device,
                       const char* operation) {
    const DeviceArray& array = device_matrix(value, operation, "a result", columns, device);
    if (!array.dtype.is(py::dtype::of<T>()) || array.shape[0] != rows || (columns > 1 && array.strides[1] != 1))
        throw ShapeError(std::string(operation) + ": a result must be (" + std::to_string(rows) + ", " +
                         std::to_string(columns) + ") with contiguous rows, got " + shape_text(array.shape));
    return {reinterpret_cast<T*>(array.data), array.strides[0]};
}

template <class T>
void forward_on_device(const py::list& sources, const py::list& weights, const py::object& bias,
                       const py::list& identity, const std::string& activation, const py::object& out,
                       const py::object& stream) {
    constexpr const char* operation = "residual_forward";
    const DeviceArray& result = out.cast<const DeviceArray&>();
    CudaDevice& device = *result.device;
    StreamOrder order(device, named_stream(stream, operation));
    const auto in = block_inputs<T>(operation, sources, weights, bias, identity, activation, device);
    check_fits(in.arguments, operation);
    const std::int64_t rows = in.arguments.rows, columns = in.arguments.columns;
    MutableRows<T> stored;
    MutableRows<Compute<T>> wide;
    if (computes_itself<T> || result.dtype.is(py::dtype::of<T>()))
        stored = written<T>(out, rows, columns, device, operation);
    else
        wide = written<Compute<T>>(out, rows, columns, device, operation);
    const WithoutGil release;
    residual_forward(in.arguments, stored, wide);
    order.finish();
}

// Where a block's δ are to be: at least one of them.
CudaDevice& device_of(const py::list& deltas, const char* operation) {
    if (deltas.empty()) throw ShapeError(std::string(operation) + ": there must be room for δ");
    return *deltas[0].cast<const DeviceArray&>().device;
}

// Room for δ, and for the gradients of the sources.
template <class T>
StoredGradients<T> results(const ResidualArguments<T>& arguments, const py::list& d_sources, const py::list& deltas,
                           const char* operation) {
    StoredGradients<T> out;
    if (d_sources.size() != arguments.sources.size())
        throw ShapeError(std::string(operation) + ": there must be as many gradients as sources");
    for (std::size_t s = 0; s < d_sources.size(); ++s)
        out.sources.push_back(
            written<T>(d_sources[s], arguments.rows, arguments.sources[s].columns, *arguments.device, operation));
    for (const py::handle delta : deltas)
        out.deltas.push_back(written<T>(delta, arguments.rows, arguments.columns, *arguments.device, operation));
    return out;
}

template <class T>
Rows<T> rows_of(const Matrix<T>& matrix) {
    return {matrix.data, matrix.stride};
}

template <class T>
void backward_on_device(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
                        const py::object& bias, const py::list& identity, const std::string& activation,
                        const py::list& d_sources, const py::list& d_weights, const py::object& d_bias,
                        const py::list& deltas, const py::object& stream) {
    constexpr const char* operation = "residual_backward";
    CudaDevice& device = device_of(deltas, operation);
    StreamOrder order(device, named_stream(stream, operation));
    auto in = block_inputs<T>(operation, sources, weights, bias, identity, activation, device);
    check_fits(in.arguments, operation);
    const std::int64_t columns = in.arguments.columns;
    const Matrix<T> g = in.matrix(grad, operation, "grad"), output = in.matrix(a, operation, "a");
    StoredGradients<T> out = results(in.arguments, d_sources, deltas, operation);
    if (d_weights.size() != in.arguments.weights.size())
        throw ShapeError("residual_backward: there must be as many gradients as weights");
    for (std::size_t s = 0; s < d_weights.size(); ++s)
        out.weights.push_back({written<T>(d_weights[s], in.arguments.weights[s].rows, columns, device, operation), {}});
    if (!d_bias.is_none()) {
        const py::object row = py::cast(d_bias.cast<const DeviceArray&>().as_row());
        out.bias.rounded = written<T>(row, 1, columns, device, operation);
    }
    const WithoutGil release;
    residual_backward(in.arguments, rows_of(g), rows_of(output), out);
    order.finish();
}

template <class T>
Strided<T> in_place(const py::handle& value, const CudaDevice& device) {
    const DeviceArray& given = value.cast<const DeviceArray&>();
    const DeviceArray w = given.shape.size() == 1 ? given.as_row() : given;
    if (w.device != &device || !w.dtype.is(py::dtype::of<T>()) || w.read_only)
        throw DeviceError("residual_update: weights must be writable, on " + device.name());
    if (w.strides[1] != 1 && w.shape[1] > 1 && w.strides[0] != 1 && w.shape[0] > 1)
        throw ShapeError("residual_update: of weights on a GPU, rows or columns must be contiguous");
    return {reinterpret_cast<T*>(w.data), w.shape[0], w.shape[1], w.strides[0], w.strides[1]};
}

template <class T>
void update_on_device(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
                      const py::object& bias, const py::list& identity, const std::string& activation,
                      const py::list& d_sources, const py::list& deltas, double lr, const py::object& stream) {
    constexpr const char* operation = "residual_update";
    if (!(lr > 0 && std::isfinite(lr)))
        throw ValueError("residual_update: lr must be positive and finite, got " + number_text(lr));
    CudaDevice& device = device_of(deltas, operation);
    StreamOrder order(device, named_stream(stream, operation));
    auto in = block_inputs<T>(operation, sources, weights, bias, identity, activation, device);
    check_fits(in.arguments, operation);
    const Matrix<T> g = in.matrix(grad, operation, "grad"), output = in.matrix(a, operation, "a");
    const StoredGradients<T> out = results(in.arguments, d_sources, deltas, operation);
    TrainedMatrices<T> trained;
    for (const py::handle w : weights) trained.weights.push_back(in_place<T>(w, device));
    if (!bias.is_none()) trained.bias = in_place<T>(bias, device);
    const WithoutGil release;
    residual_update(in.arguments, rows_of(g), rows_of(output), trained, lr, out);
    order.finish();
}

template <class T>
void register_device_block(py::module_& m, const std::string& suffix) {
    const auto name = [&](const char* function) { return std::string(function) + "_on_gpu_" + suffix; };
    m.def(name("residual_forward").c_str(), &forward_on_device<T>, py::arg("sources"), py::arg("weights"),
          py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("out"), py::arg("stream"));
    m.def(name("residual_backward").c_str(), &backward_on_device<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("d_sources"),
          py::arg("d_weights"), py::arg("d_bias"), py::arg("deltas"), py::arg("stream"));
    m.def(name("residual_update").c_str(), &update_on_device<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("d_sources"),
          py::arg("deltas"), py::arg("lr"), py::arg("stream"));
}

}  // namespace

void register_device_ops(py::module_& m) {
    register_device_block<float>(m, "f32");
    register_device_block<double>(m, "f64");
    register_device_block<bfloat16>(m, "bf16");
    m.def(
        "wait_for_stream",
        [](const std::string& device, const py::object& stream, const std::string& operation) {
            wait_for_stream(gpu_named(device, operation.c_str()), stream, operation.c_str());
        },
        py::arg("device"), py::arg("stream"), py::arg("operation"),
        "Work on the device comes after what the stream, a cudaStream_t's address or None, was given so far.");
}

}  // namespace resnetcore

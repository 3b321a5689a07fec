// resnetcore._core's pure functions of arrays in a GPU's memory. python/resnetcore/_blocks.py has checked every
// argument and made every result; what does not fit is an error all the same, as a mistake there would write outside an
// array.
#include <pybind11/stl.h>

#include <cmath>
#include <deque>

#include "base/error.h"
#include "base/text.h"
#include "bindings/block_inputs.h"
#include "bindings/register.h"
#include "bindings/stream_order.h"
#include "bindings/without_gil.h"
#include "functional/device_descent.h"

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
void forward(const py::list& sources, const py::list& weights, const py::object& bias, const py::list& identity,
             const std::string& activation, const py::object& out, const py::object& stream) {
    constexpr const char* operation = "residual_forward";
    const DeviceArray& result = out.cast<const DeviceArray&>();
    CudaDevice& device = *result.device;
    StreamOrder order(device, stream, operation);
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

// Gradients of weights, as they are summed until `finish`, which stores them: at once where that is the same.
template <class T>
class StoredSums {
public:
    explicit StoredSums(Device& device) : device_(device) {}
    MutableRows<Compute<T>> begin(MutableRows<T> to, std::int64_t rows, std::int64_t columns) {
        if constexpr (computes_itself<T>) return to;
        sums_.push_back({AlignedArray<Compute<T>>(device_, rows * columns), to, rows, columns});
        return {sums_.back().memory.data(), columns};
    }
    void finish() {
        for (const Sum& s : sums_) device_.kernels<T>().narrow(s.rows, s.columns, {s.memory.data(), s.columns}, s.to);
    }

private:
    struct Sum {
        AlignedArray<Compute<T>> memory;
        MutableRows<T> to;
        std::int64_t rows, columns;
    };
    Device& device_;
    std::deque<Sum> sums_;
};

// Where a block's δ are to be: at least one of them.
CudaDevice& device_of(const py::list& deltas, const char* operation) {
    if (deltas.empty()) throw ShapeError(std::string(operation) + ": there must be room for δ");
    return *deltas[0].cast<const DeviceArray&>().device;
}

template <class T>
struct Results {
    ResidualGradients<T> gradients;
    std::vector<T*> deltas;  // every identity term's after the first
};

// Room for δ, dense, and for the gradients of the sources.
template <class T>
Results<T> results(const ResidualArguments<T>& arguments, const py::list& d_sources, const py::list& deltas,
                   const char* operation) {
    Results<T> out;
    if (d_sources.size() != arguments.sources.size())
        throw ShapeError(std::string(operation) + ": there must be as many gradients as sources");
    for (std::size_t s = 0; s < d_sources.size(); ++s)
        out.gradients.sources.push_back(
            written<T>(d_sources[s], arguments.rows, arguments.sources[s].columns, *arguments.device, operation));
    for (std::size_t i = 0; i < deltas.size(); ++i) {
        const auto rows = written<T>(deltas[i], arguments.rows, arguments.columns, *arguments.device, operation);
        if (!deltas[i].cast<const DeviceArray&>().is_dense())
            throw ShapeError(std::string(operation) + ": room for δ must be dense");
        if (i == 0)
            out.gradients.delta = rows;
        else
            out.deltas.push_back(rows.data);
    }
    return out;
}

// All of a backward pass, δ copied for every term included.
template <class T>
void differentiate(const ResidualArguments<T>& arguments, const Matrix<T>& grad, const Matrix<T>& a,
                   const Results<T>& out) {
    residual_backward(arguments, Rows<T>{grad.data, grad.stride}, Rows<T>{a.data, a.stride}, out.gradients);
    const auto bytes = static_cast<std::size_t>(arguments.rows * arguments.columns) * sizeof(T);
    for (T* copy : out.deltas) arguments.device->copy(copy, out.gradients.delta.data, bytes);
}

template <class T>
void backward(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
              const py::object& bias, const py::list& identity, const std::string& activation,
              const py::list& d_sources, const py::list& d_weights, const py::object& d_bias, const py::list& deltas,
              const py::object& stream) {
    constexpr const char* operation = "residual_backward";
    CudaDevice& device = device_of(deltas, operation);
    StreamOrder order(device, stream, operation);
    auto in = block_inputs<T>(operation, sources, weights, bias, identity, activation, device);
    check_fits(in.arguments, operation);
    const std::int64_t columns = in.arguments.columns;
    const Matrix<T> g = in.matrix(grad, operation, "grad"), output = in.matrix(a, operation, "a");
    Results<T> out = results(in.arguments, d_sources, deltas, operation);
    StoredSums<T> sums(device);
    if (d_weights.size() != in.arguments.weights.size())
        throw ShapeError("residual_backward: there must be as many gradients as weights");
    for (std::size_t s = 0; s < d_weights.size(); ++s) {
        const std::int64_t inner = in.arguments.weights[s].rows;
        out.gradients.weights.push_back(
            sums.begin(written<T>(d_weights[s], inner, columns, device, operation), inner, columns));
    }
    if (!d_bias.is_none()) {
        const py::object row = py::cast(d_bias.cast<const DeviceArray&>().as_row());
        out.gradients.bias = sums.begin(written<T>(row, 1, columns, device, operation), 1, columns).data;
    }
    const WithoutGil release;
    differentiate(in.arguments, g, output, out);
    sums.finish();
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
void update(const py::object& grad, const py::object& a, const py::list& sources, const py::list& weights,
            const py::object& bias, const py::list& identity, const std::string& activation, const py::list& d_sources,
            const py::list& deltas, double lr, const py::object& stream) {
    constexpr const char* operation = "residual_update";
    if (!(lr > 0 && std::isfinite(lr)))
        throw ValueError("residual_update: lr must be positive and finite, got " + number_text(lr));
    CudaDevice& device = device_of(deltas, operation);
    StreamOrder order(device, stream, operation);
    auto in = block_inputs<T>(operation, sources, weights, bias, identity, activation, device);
    check_fits(in.arguments, operation);
    const Matrix<T> g = in.matrix(grad, operation, "grad"), output = in.matrix(a, operation, "a");
    Results<T> out = results(in.arguments, d_sources, deltas, operation);
    std::deque<DeviceDescent<T>> trained;
    for (const py::handle w : weights) {
        trained.emplace_back(device, in_place<T>(w, device), lr);
        out.gradients.weights.push_back(trained.back().gradient());
    }
    if (!bias.is_none()) {
        trained.emplace_back(device, in_place<T>(bias, device), lr);
        out.gradients.bias = trained.back().gradient().data;
    }
    const WithoutGil release;
    differentiate(in.arguments, g, output, out);
    for (DeviceDescent<T>& one : trained) one.step();
    order.finish();
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
    const auto name = [&](const char* function) { return std::string(function) + "_on_gpu_" + suffix; };
    m.def(name("residual_forward").c_str(), &forward<T>, py::arg("sources"), py::arg("weights"), py::arg("bias"),
          py::arg("identity"), py::arg("activation"), py::arg("out"), py::arg("stream"));
    m.def(name("residual_backward").c_str(), &backward<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("d_sources"),
          py::arg("d_weights"), py::arg("d_bias"), py::arg("deltas"), py::arg("stream"));
    m.def(name("residual_update").c_str(), &update<T>, py::arg("grad"), py::arg("a"), py::arg("sources"),
          py::arg("weights"), py::arg("bias"), py::arg("identity"), py::arg("activation"), py::arg("d_sources"),
          py::arg("deltas"), py::arg("lr"), py::arg("stream"));
}

}  // namespace

void register_device_ops(py::module_& m) {
    register_for<float>(m, "f32");
    register_for<double>(m, "f64");
    register_for<bfloat16>(m, "bf16");
    m.def(
        "wait_for_stream",
        [](const std::string& device, const py::object& stream, const std::string& operation) {
            wait_for_stream(gpu_named(device, operation.c_str()), stream, operation.c_str());
        },
        py::arg("device"), py::arg("stream"), py::arg("operation"),
        "Work on the device comes after what the stream, a cudaStream_t's address or None, was given so far.");
}

}  // namespace resnetcore

#include "bindings/dlpack.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "bindings/array.h"
#include "bindings/dlpack_tensor.h"
#include "bindings/register.h"
#include "bindings/without_gil.h"
#include "runtime/cuda_device.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

bool is_on_host(const dlpack::Tensor& t) {
    return t.device_kind == dlpack::cpu || t.device_kind == dlpack::cuda_host || t.device_kind == dlpack::rocm_host ||
           t.device_kind == dlpack::cuda_managed;
}

// Waits for what a GPU does with memory that the CPU shares with it: asked without a stream, its producer has put that
// before all that CUDA's default stream is asked for from now on.
void wait_for_gpu(int index, const std::string& what) {
    try {
        CudaDevice& device = find_cuda_device(index);
        const WithoutGil release;
        const CurrentDevice current(device);
        device.wait_for_default_stream();
        device.synchronize();
    } catch (const DeviceError& error) {
        dlpack::refuse(what,
                       "the array is in memory that the CPU shares with a GPU, whose work on it cannot be waited "
                       "for: " +
                           std::string(error.what()) + "; copy it to the CPU first");
    }
}

// A bfloat16 is the upper half of the float32 of the same value.
py::array widened(const py::array& halves) {
    const py::array dense = resnetcore::dense<bfloat16>(halves);
    py::array_t<float> result(std::vector<py::ssize_t>(dense.shape(), dense.shape() + dense.ndim()));
    const auto* from = static_cast<const bfloat16*>(dense.data());
    float* to = result.mutable_data();
    for (py::ssize_t i = 0; i < dense.size(); ++i) to[i] = to_float(from[i]);
    return std::move(result);
}

}  // namespace

py::array from_dlpack(const py::object& value, const std::string& what, bool widen, bool written) {
    dlpack::Offered offered(dlpack::ask(value, what, py::none()), what);
    if (!is_on_host(offered.tensor()))
        dlpack::refuse(what, "the array is on a device of DLPack's kind " +
                                 std::to_string(offered.tensor().device_kind) +
                                 ", which this process cannot read; copy it to the CPU first");
    if (offered.tensor().device_kind == dlpack::cuda_managed) wait_for_gpu(offered.tensor().device_index, what);
    if (written) offered.check_writable("a NumPy array of its memory or a copy");
    const py::dtype dtype = offered.dtype();
    const std::vector<std::int64_t> shape = offered.shape();
    std::vector<py::ssize_t> strides;
    for (const std::int64_t stride : offered.strides()) strides.push_back(stride * dtype.itemsize());
    py::array array(dtype, shape, strides, offered.data(), offered.keep());
    if (offered.is_read_only()) array.attr("setflags")(py::arg("write") = false);
    return widen && py::isinstance<py::array_t<bfloat16>>(array) ? widened(array) : array;
}

void register_dlpack(py::module_& m) {
    m.def("from_dlpack", &from_dlpack, py::arg("value"), py::arg("what"), py::arg("widen") = true,
          py::arg("written") = false,
          "A NumPy array of the memory of any CPU array that speaks DLPack; bfloat16 becomes float32 where widened.");
    m.def("bfloat16_dtype", &py::dtype::of<bfloat16>, "The dtype that stands for bfloat16, which NumPy lacks.");
}

}  // namespace resnetcore

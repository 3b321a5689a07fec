// resnetcore.DeviceArray: what Python sees of an array in a GPU's memory.
#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings/device_array.h"
#include "bindings/dlpack_export.h"
#include "bindings/dlpack_tensor.h"
#include "bindings/register.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

py::object interface_or_none(const DeviceArray& array) {
    py::object interface = cuda_array_interface(array);
    if (interface.is_none())
        throw py::attribute_error("bfloat16 has no typestr in __cuda_array_interface__; use __dlpack__");
    return interface;
}

std::int64_t length(const DeviceArray& array) {
    if (array.shape.empty()) throw py::type_error("len() of a DeviceArray without dimensions");
    return array.shape[0];
}

DeviceArray zeros_on(const std::string& device, std::vector<std::int64_t> shape, const py::dtype& dtype) {
    return DeviceArray::zeros(gpu_named(device, "zeros_on"), dtype, std::move(shape));
}

std::string description(const DeviceArray& array) {
    const py::tuple shape(py::cast(array.shape));
    return "<DeviceArray of " + py::repr(shape).cast<std::string>() + " " + py::str(array.dtype).cast<std::string>() +
           " on " + array.device->name() + ">";
}

}  // namespace

void register_device_array(py::module_& m) {
    py::class_<DeviceArray>(m, "DeviceArray", R"(An array in a GPU's memory, as networks there give them.

Other libraries take it without a copy, by DLPack (`torch.from_dlpack`, `cupy.from_dlpack`, `jax.dlpack.from_dlpack`) or by
`__cuda_array_interface__`. Whoever takes it finds what is in it: a stream that DLPack is told waits for what is still
being computed, and so does the CPU in `numpy()`, where it is told of none (−1), and by `__cuda_array_interface__`. Of a call that
was given a stream, it comes first in that stream's order.)")
        .def_property_readonly("shape", [](const DeviceArray& a) { return py::tuple(py::cast(a.shape)); })
        .def_property_readonly("ndim", [](const DeviceArray& a) { return a.shape.size(); })
        .def_property_readonly("dtype", [](const DeviceArray& a) { return a.dtype; })
        .def_property_readonly(
            "device", [](const DeviceArray& a) { return a.device->name(); }, "As `Network.device`: \"cuda:0\".")
        .def("numpy", &DeviceArray::numpy, "A copy in the CPU's memory.")
        .def("__len__", &length)
        .def("__getitem__", &DeviceArray::operator[], py::arg("rows"), "A slice of the rows, of the same memory.")
        .def("__repr__", &description)
        .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
             py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
             "A DLPack capsule, as the Python array API standard describes it.")
        .def("__dlpack_device__",
             [](const DeviceArray& a) { return py::make_tuple(static_cast<int>(dlpack::cuda), a.device->index()); })
        .def_property_readonly("__cuda_array_interface__", &interface_or_none);
    m.def("device_array", &device_array, py::arg("value"), py::arg("what"), py::arg("home") = "cuda",
          py::arg("written") = false,
          "The memory of any array on a GPU that speaks DLPack or has a __cuda_array_interface__.");
    m.def("array_at", &array_at, py::arg("device"), py::arg("address"), py::arg("shape"), py::arg("strides"),
          py::arg("dtype"), py::arg("owner"),
          "Memory of a GPU that `owner` keeps; strides in elements. Work on it is not ordered by this.");
    m.def("zeros_on", &zeros_on, py::arg("device"), py::arg("shape"), py::arg("dtype"),
          "Zeros in a GPU's memory, in C order.");
    m.def("layout_of", &DeviceArray::layout, py::arg("array"),
          "A NumPy array of the same addresses: its elements are not the CPU's to read.");
    m.def("to_device", &to_device, py::arg("array"), py::arg("device"), "A copy of a NumPy array in a GPU's memory.");
}

}  // namespace resnetcore

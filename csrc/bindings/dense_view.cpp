#include "bindings/dense_view.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "bindings/device_array.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

const dlpack::ExchangeApi* api_of(py::handle type) {
    if (!py::hasattr(type, "__dlpack_c_exchange_api__")) return nullptr;
    const py::object capsule = type.attr("__dlpack_c_exchange_api__");
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (api && api->major != dlpack::known_major) api = api->older;
    return api && api->tensor_from_object ? api : nullptr;
}

bool is_in_c_order(const dlpack::Tensor& t) {
    std::int64_t next = 1;
    for (int i = t.ndim - 1; t.strides && i >= 0; --i) {
        if (t.shape[i] != 1 && t.strides[i] != next) return false;
        next *= t.shape[i];
    }
    return true;
}

template <class Element>
bool holds(const dlpack::Tensor& t) {
    const auto code = std::is_floating_point_v<Element> ? dlpack::floating
                      : std::is_signed_v<Element>       ? dlpack::integer
                                                        : dlpack::unsigned_integer;
    return t.code == code && t.bits == 8 * sizeof(Element) && t.lanes == 1 && t.device_kind == dlpack::cpu;
}

}  // namespace

bool DenseViews::look(py::handle array, dlpack::Tensor& tensor) {
    if (Py_TYPE(array.ptr()) != type_) {
        type_ = Py_TYPE(array.ptr());
        api_ = api_of(py::type::handle_of(array));
    }
    if (!api_) return false;
    if (api_->tensor_from_object(array.ptr(), &tensor) != 0) throw py::error_already_set();
    return true;
}

bool DenseViews::reads(py::handle array) {
    dlpack::Tensor tensor;
    try {
        if (!look(array, tensor)) return false;
    } catch (const py::error_already_set&) {  // of a kind that cannot be shown: sparse, say
        return false;
    }
    if (tensor.device_kind != dlpack::cpu || !is_in_c_order(tensor)) return false;
    // Memory that was freed is at null, as is that of no numbers.
    if (!tensor.data) return std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim;
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
    return address % std::max(1, tensor.bits / 8) == 0;
}

template <class Element>
Element* DenseViews::find(py::handle array, const DenseShape& shape, bool written, const char* operation,
                          const std::string& name) {
    dlpack::Tensor tensor;
    void* data = nullptr;
    bool fits = false, empty = false;
    for (int i = 0; i < shape.ndim; ++i) empty |= shape.sizes[i] == 0;
    // First what most arrays are: to ask for one of our own types takes longer than to find where a tensor lies.
    if (device_.is_host() && look(array, tensor)) {
        data = static_cast<char*>(tensor.data) + tensor.byte_offset;
        fits = holds<Element>(tensor) && tensor.ndim == shape.ndim &&
               std::equal(shape.sizes, shape.sizes + shape.ndim, tensor.shape) && (empty || is_in_c_order(tensor));
    } else if (py::isinstance<DeviceArray>(array)) {
        const auto& there = array.cast<const DeviceArray&>();
        data = there.data;
        fits = there.device == &device_ && there.dtype.is(py::dtype::of<Element>()) && (empty || there.is_dense()) &&
               std::equal(shape.sizes, shape.sizes + shape.ndim, there.shape.begin(), there.shape.end()) &&
               !(written && there.read_only);
    } else if (device_.is_host() && py::isinstance<py::array_t<Element, py::array::c_style>>(array)) {
        const auto numpy = py::reinterpret_borrow<py::array>(array);
        data = const_cast<void*>(numpy.data());
        fits = numpy.ndim() == shape.ndim && std::equal(shape.sizes, shape.sizes + shape.ndim, numpy.shape()) &&
               (numpy.writeable() || !written);
    }
    // Memory that its owner has freed is at null.
    if (!fits || (!empty && (!data || reinterpret_cast<std::uintptr_t>(data) % alignof(Element) != 0)))
        throw ShapeError(std::string(operation) + ": " + name + " must be a dense array of shape " +
                         shape_text(std::vector<std::int64_t>(shape.sizes, shape.sizes + shape.ndim)) + " on " +
                         device_.name());
    return static_cast<Element*>(data);
}

template float* DenseViews::find(py::handle, const DenseShape&, bool, const char*, const std::string&);
template double* DenseViews::find(py::handle, const DenseShape&, bool, const char*, const std::string&);
template std::int64_t* DenseViews::find(py::handle, const DenseShape&, bool, const char*, const std::string&);
template std::uint8_t* DenseViews::find(py::handle, const DenseShape&, bool, const char*, const std::string&);

}  // namespace resnetcore

#include "bindings/device_array.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "bindings/array.h"
#include "bindings/dlpack_tensor.h"
#include "bindings/without_gil.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

std::vector<std::int64_t> dense_strides(const std::vector<std::int64_t>& shape) {
    std::vector<std::int64_t> strides(shape.size());
    std::int64_t next = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
        strides[i] = next;
        next *= std::max<std::int64_t>(shape[i], 1);
    }
    return strides;
}

// The memory from an array's first element to its last, both counted in elements.
struct Span {
    std::int64_t before = 0, elements = 1;  // before the element of index 0; in all
};
Span span_of(const DeviceArray& array) {
    Span span;
    if (array.size() == 0) return {0, 0};
    for (std::size_t i = 0; i < array.shape.size(); ++i) {
        const std::int64_t reach = (array.shape[i] - 1) * array.strides[i];
        span.elements += std::abs(reach);
        if (reach < 0) span.before -= reach;
    }
    return span;
}

GatherArgs::Type type_of(const py::dtype& dtype) {
    if (dtype.is(py::dtype::of<bfloat16>())) return GatherArgs::bf16;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return GatherArgs::f32;
    if (dtype.kind() == 'f' && dtype.itemsize() == 8) return GatherArgs::f64;
    throw DTypeError("a matrix of floats is needed, got " + py::str(dtype).cast<std::string>());
}

// Memory that goes back in the order of the device's stream, after all of ours that reads it.
struct Owned {
    static constexpr const char* name = "resnetcore.DeviceArray";
    CudaDevice& device;
    void* memory;
    bool is_given = false;    // to others, whose work may be on streams of their own
    bool is_pending = false;  // work on it was asked for that nobody has waited for, as far as is known
};

// Of the library's memory; null for another's.
Owned* owned_by(const py::object& owner) {
    if (!PyCapsule_IsValid(owner.ptr(), Owned::name)) return nullptr;
    return static_cast<Owned*>(PyCapsule_GetPointer(owner.ptr(), Owned::name));
}

// Which streams those are is not known: one that a consumer named is the consumer's, and may be gone by now.
void give_back(const Owned& gone) noexcept {
    try {
        if (gone.is_given) {
            const CurrentDevice current(gone.device);
            gone.device.wait_for_default_stream();
        }
    } catch (const std::exception&) {
        return;  // rather lost than written to while it is read
    }
    gone.device.release(gone.memory);
}

py::capsule owned(CudaDevice& device, void* memory) {
    return {new Owned{device, memory}, Owned::name, [](void* pointer) {
                const std::unique_ptr<Owned> gone(static_cast<Owned*>(pointer));
                give_back(*gone);
            }};
}

// A kernel that reads an element across its boundary ends the process's work on the GPU.
void check_alignment(const DeviceArray& array, const std::string& what) {
    if (array.size() > 0 && reinterpret_cast<std::uintptr_t>(array.data) % array.dtype.itemsize() != 0)
        dlpack::refuse(what, "the array's data must lie on a boundary of its elements, of " +
                                 std::to_string(array.dtype.itemsize()) + " bytes each; copy it first");
}

DeviceArray checked(const DeviceArray& array, const std::string& what, bool written) {
    if (written && array.read_only) throw ValueError(what + " is written to, and it is read-only");
    return array;
}

// Nothing, where it is to be `written` to and only its __cuda_array_interface__ says whether it may be.
std::optional<DeviceArray> of_dlpack(const py::object& value, const std::string& what, bool written) {
    const auto place = value.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (place.first != dlpack::cuda)
        dlpack::refuse(what, "the array is on a device of DLPack's kind " + std::to_string(place.first) +
                                 ", which is no CUDA GPU; copy it to the CPU first");
    CudaDevice& device = find_cuda_device(place.second);
    // Its producer may only look at the thread's own device (PyTorch does), and makes our stream wait for its own.
    const CurrentDevice current(device);
    const auto stream = reinterpret_cast<std::uintptr_t>(device.stream());
    dlpack::Offered offered(dlpack::ask(value, what, py::int_(stream)), what);
    const dlpack::Tensor& t = offered.tensor();
    if (t.device_kind != place.first || t.device_index != place.second)
        dlpack::refuse(what, "the DLPack array is on another device than __dlpack_device__() says");
    if (written && !offered.is_versioned()) {
        if (py::hasattr(value, "__cuda_array_interface__")) return std::nullopt;
        offered.check_writable("its __cuda_array_interface__");
    }
    DeviceArray array;
    array.device = &device;
    array.data = static_cast<char*>(offered.data());
    array.dtype = offered.dtype();
    array.shape = offered.shape();
    array.strides = offered.strides();
    array.read_only = offered.is_read_only();
    array.owner = offered.keep();
    check_alignment(array, what);
    return array;
}

std::vector<std::int64_t> element_strides(const py::object& bytes, const DeviceArray& array, const std::string& what) {
    if (bytes.is_none()) return dense_strides(array.shape);
    auto strides = bytes.cast<std::vector<std::int64_t>>();
    if (strides.size() != array.shape.size())
        dlpack::refuse(what, "__cuda_array_interface__ has " + std::to_string(strides.size()) + " strides for " +
                                 std::to_string(array.shape.size()) + " dimensions");
    for (std::int64_t& stride : strides) {
        if (stride % array.dtype.itemsize())
            dlpack::refuse(what, "the strides of __cuda_array_interface__ must be whole elements, got " +
                                     std::to_string(stride) + " bytes");
        stride /= array.dtype.itemsize();
    }
    return strides;
}

// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html. Before version 3, work on the array is ordered
// by CUDA's default stream.
void wait_for_producer(const py::dict& interface, int version, CudaDevice& device, const std::string& what) {
    py::object stream = py::none();
    if (interface.contains("stream")) stream = interface["stream"];
    if (version < 3) stream = py::int_(1);
    if (stream.is_none()) return;
    const auto handle = stream.cast<std::intptr_t>();
    if (handle == 0)
        dlpack::refuse(what,
                       "__cuda_array_interface__ names stream 0, which may be either default stream; 1 is the "
                       "legacy one, 2 the thread's");
    device.wait_for_stream(at_address(handle));
}

DeviceArray from_interface(const py::object& value, const std::string& what, const std::string& home) {
    const auto interface = value.attr("__cuda_array_interface__").cast<py::dict>();
    auto entry = [&](const char* name) -> py::object {
        return interface.contains(name) ? py::object(interface[name]) : py::none();
    };
    const int version = entry("version").is_none() ? 0 : entry("version").cast<int>();
    if (version > 3)
        dlpack::refuse(what, "the array offers version " + std::to_string(version) +
                                 " of __cuda_array_interface__; version 3 and older are known");
    if (!entry("mask").is_none()) dlpack::refuse(what, "the array has masked elements; fill them first");
    DeviceArray array;
    array.dtype = py::dtype(entry("typestr").cast<std::string>());
    if (!std::strchr("biufc", array.dtype.kind()))
        throw DTypeError(what + " must hold numbers, got " + entry("typestr").cast<std::string>());
    if (array.dtype.byteorder() == '>')
        throw DTypeError(what + " must be in native byte order, got " + entry("typestr").cast<std::string>());
    array.shape = entry("shape").cast<std::vector<std::int64_t>>();
    dlpack::check_sizes(array.shape.data(), static_cast<int>(array.shape.size()), array.dtype.itemsize(), what);
    array.strides = element_strides(entry("strides"), array, what);
    const auto memory = entry("data").cast<std::pair<std::uintptr_t, bool>>();
    array.data = static_cast<char*>(at_address(static_cast<std::intptr_t>(memory.first)));
    array.read_only = memory.second;
    array.owner = value;
    // Without elements it has no memory either, and is as well there as anywhere.
    array.device = array.size() == 0 ? dynamic_cast<CudaDevice*>(&find_device(home)) : find_cuda_device_of(array.data);
    if (!array.device) dlpack::refuse(what, "the data of __cuda_array_interface__ is in no GPU's memory");
    const CurrentDevice current(*array.device);
    check_alignment(array, what);
    wait_for_producer(interface, version, *array.device, what);
    return array;
}

}  // namespace

void* at_address(std::intptr_t address) {
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): Python has no pointers
}

DeviceArray DeviceArray::unset(CudaDevice& device, const py::dtype& dtype, std::vector<std::int64_t> shape) {
    DeviceArray array;
    array.device = &device;
    array.dtype = dtype;
    array.shape = std::move(shape);
    array.strides = dense_strides(array.shape);
    const CurrentDevice current(device);
    array.data = static_cast<char*>(device.allocate_unset(array.bytes()));
    array.owner = owned(device, array.data);
    return array;
}

DeviceArray DeviceArray::zeros(CudaDevice& device, const py::dtype& dtype, std::vector<std::int64_t> shape) {
    DeviceArray array = unset(device, dtype, std::move(shape));
    const CurrentDevice current(device);
    device.clear(array.data, array.bytes());
    return array;
}

DeviceArray DeviceArray::copy() const {
    const Span span = span_of(*this);
    DeviceArray same = unset(*device, dtype, {span.elements});
    const CurrentDevice current(*device);
    device->copy(same.data, data - span.before * dtype.itemsize(), same.bytes());
    same.data += span.before * dtype.itemsize();
    same.shape = shape;
    same.strides = strides;
    return same;
}

void DeviceArray::note_given() const {
    if (Owned* const memory = owned_by(owner)) memory->is_given = true;
}

bool DeviceArray::is_ours_alone() const {
    const Owned* const memory = owned_by(owner);
    return memory && !memory->is_given;
}

void DeviceArray::note_pending() const {
    if (Owned* const memory = owned_by(owner)) memory->is_pending = true;
}

void DeviceArray::wait_if_pending() const {
    Owned* const memory = owned_by(owner);
    if (!memory || !memory->is_pending) return;
    {
        const WithoutGil release;
        const CurrentDevice current(*device);
        device->synchronize();
    }
    // Of memory that was not given before, another thread may have left work meanwhile.
    if (memory->is_given) memory->is_pending = false;
}

std::int64_t DeviceArray::size() const {
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    return count;
}

bool DeviceArray::is_dense() const {
    const std::vector<std::int64_t> dense = dense_strides(shape);
    for (std::size_t i = 0; i < shape.size(); ++i)
        if (shape[i] > 1 && strides[i] != dense[i]) return false;
    return true;
}

DeviceArray DeviceArray::as_row() const {
    if (shape.size() != 1) throw ShapeError("a vector is needed, got " + shape_text(shape));
    DeviceArray row = *this;
    row.shape.insert(row.shape.begin(), 1);
    row.strides.insert(row.strides.begin(), shape[0] * strides[0]);
    return row;
}

DeviceArray DeviceArray::transposed() const {
    DeviceArray turned = *this;
    std::reverse(turned.shape.begin(), turned.shape.end());
    std::reverse(turned.strides.begin(), turned.strides.end());
    return turned;
}

DeviceArray DeviceArray::operator[](const py::slice& rows) const {
    if (shape.empty()) throw ShapeError("a DeviceArray without dimensions has no rows");
    py::ssize_t start = 0, stop = 0, step = 0, count = 0;
    if (!rows.compute(shape[0], &start, &stop, &step, &count)) throw py::error_already_set();
    DeviceArray part = *this;
    if (count > 0) part.data += start * strides[0] * dtype.itemsize();
    part.shape[0] = count;
    part.strides[0] *= step;
    return part;
}

py::array DeviceArray::layout() const {
    std::vector<py::ssize_t> byte_strides(strides.begin(), strides.end());
    for (py::ssize_t& stride : byte_strides) stride *= dtype.itemsize();
    py::array same(dtype, shape, byte_strides, size() > 0 ? data : nullptr, py::none());
    if (read_only) same.attr("setflags")(py::arg("write") = false);
    return same;
}

py::array DeviceArray::numpy() const {
    const Span span = span_of(*this);
    const py::ssize_t item = dtype.itemsize();
    const py::array_t<unsigned char> bytes(span.elements * item);
    auto* const to = const_cast<unsigned char*>(bytes.data());
    {
        const WithoutGil release;
        const CurrentDevice current(*device);
        device->download(to, data - span.before * item, static_cast<std::size_t>(bytes.size()));
    }
    std::vector<py::ssize_t> byte_strides(strides.begin(), strides.end());
    for (py::ssize_t& stride : byte_strides) stride *= item;
    const py::array view(dtype, shape, byte_strides, to + span.before * item, bytes);
    return is_dense() ? view : view.attr("copy")().cast<py::array>();
}

Device& device_named(const std::string& device) {
    const WithoutGil release;
    return find_device(device);
}

CudaDevice& gpu_named(const std::string& device, const char* operation) {
    auto* const gpu = dynamic_cast<CudaDevice*>(&find_device(device));
    if (!gpu) throw DeviceError(std::string(operation) + ": device must be a GPU, got \"" + device + "\"");
    return *gpu;
}

DeviceArray array_at(const std::string& device, std::intptr_t address, std::vector<std::int64_t> shape,
                     std::vector<std::int64_t> strides, const py::dtype& dtype, const py::object& owner) {
    DeviceArray array;
    array.device = &gpu_named(device, "array_at");
    array.data = static_cast<char*>(at_address(address));
    array.dtype = dtype;
    array.shape = std::move(shape);
    array.strides = std::move(strides);
    array.owner = owner;
    check_alignment(array, "array_at");
    return array;
}

DeviceArray to_device(const py::array& array, const std::string& device) {
    CudaDevice& gpu = gpu_named(device, "to_device");
    const auto dense = py::array::ensure(array, py::array::c_style);
    DeviceArray copy = DeviceArray::unset(gpu, array.dtype(), {array.shape(), array.shape() + array.ndim()});
    const void* const from = dense.data();
    {
        const WithoutGil release;
        const CurrentDevice current(gpu);
        gpu.upload(copy.data, from, copy.bytes());
        gpu.synchronize();
    }
    return copy;
}

GatherArgs gathered_from(const DeviceArray& matrix) {
    GatherArgs args;
    args.from = matrix.data;
    args.from_type = type_of(matrix.dtype);
    args.row_stride = matrix.strides[0];
    args.column_stride = matrix.strides[1];
    return args;
}

DeviceArray device_array(const py::object& value, const std::string& what, const std::string& home, bool written) {
    if (py::isinstance<DeviceArray>(value)) return checked(value.cast<DeviceArray>(), what, written);
    if (py::hasattr(value, "__dlpack_device__"))
        if (const auto array = of_dlpack(value, what, written)) return checked(*array, what, written);
    try {
        return checked(from_interface(value, what, home), what, written);
    } catch (const py::cast_error& error) {
        dlpack::refuse(what, std::string("__cuda_array_interface__ is not sound: ") + error.what());
    } catch (const py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
        dlpack::refuse(what, "__cuda_array_interface__ is not sound: " + py::str(error.value()).cast<std::string>());
    }
}

}  // namespace resnetcore

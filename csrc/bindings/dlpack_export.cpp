#include "bindings/dlpack_export.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "base/error.h"
#include "bindings/array.h"
#include "bindings/dlpack_tensor.h"
#include "bindings/without_gil.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

using Place = std::pair<int, int>;  // DLPack's device: its kind and its number

// What a consumer's tensor points to, and what keeps that alive.
template <class M>
struct Exported {
    M managed = {};
    std::vector<std::int64_t> shape, strides;
    std::optional<py::object> owner;
};

// A consumer may call it from any thread, with or without the GIL, and after the interpreter has gone.
template <class M>
void delete_exported(M* managed) {
    auto* exported = static_cast<Exported<M>*>(managed->context);
    if (!Py_IsInitialized()) return;
    const py::gil_scoped_acquire gil;
    delete exported;
}

// A capsule that nobody has taken deletes what is in it.
template <class M>
void delete_untaken(PyObject* capsule) {
    const char* name = PyCapsule_GetName(capsule);
    if (std::string(name) != dlpack::name && std::string(name) != dlpack::versioned_name) return;
    delete_exported(static_cast<M*>(PyCapsule_GetPointer(capsule, name)));
}

std::uint8_t code_of(const py::dtype& dtype) {
    switch (dtype.kind()) {
        case 'f':
            return dlpack::floating;
        case 'i':
            return dlpack::integer;
        case 'u':
            return dlpack::unsigned_integer;
        case 'b':
            return dlpack::boolean;
        default:
            return dlpack::bfloat;  // a DeviceArray's only record
    }
}

dlpack::Tensor tensor_of(char* data, Place place, const py::dtype& dtype, std::vector<std::int64_t>& shape,
                         std::vector<std::int64_t>& strides) {
    dlpack::Tensor t = {};
    t.data = data;
    t.device_kind = place.first;
    t.device_index = place.second;
    t.ndim = static_cast<std::int32_t>(shape.size());
    t.code = code_of(dtype);
    t.bits = static_cast<std::uint8_t>(8 * dtype.itemsize());
    t.lanes = 1;
    t.shape = shape.data();
    t.strides = strides.data();
    return t;
}

struct Offer {
    char* data;
    Place place;
    py::dtype dtype;
    std::vector<std::int64_t> shape, strides;
    py::object owner;
    std::uint64_t flags;
};

template <class M>
py::object capsule_of(Offer offer, const char* name) {
    auto exported = std::make_unique<Exported<M>>();
    exported->shape = std::move(offer.shape);
    exported->strides = std::move(offer.strides);
    exported->owner = std::move(offer.owner);
    M& managed = exported->managed;
    managed.context = exported.get();
    managed.deleter = delete_exported<M>;
    managed.tensor = tensor_of(offer.data, offer.place, offer.dtype, exported->shape, exported->strides);
    if constexpr (std::is_same_v<M, dlpack::VersionedManaged>) {
        managed.major = dlpack::known_major;
        managed.flags = offer.flags;
    }
    auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(&managed, name, delete_untaken<M>));
    if (!capsule) throw py::error_already_set();
    (void)exported.release();
    return capsule;
}

std::pair<int, int> two_numbers(const py::object& given, const char* expected) {
    try {
        return given.cast<std::pair<int, int>>();
    } catch (const py::cast_error&) {
        throw ValueError(std::string("__dlpack__: ") + expected + ", got " + py::repr(given).cast<std::string>());
    }
}

bool is_versioned(const py::object& max_version) {
    return !max_version.is_none() && two_numbers(max_version, "max_version must be None or (major, minor)").first >= 1;
}

Place place_asked_for(const py::object& dl_device, Place own) {
    return dl_device.is_none() ? own : two_numbers(dl_device, "dl_device must be None or (kind, index)");
}

// −1: nobody is to wait. None is the legacy default stream, whose handle is 1.
std::intptr_t handle_of(const py::object& stream) {
    if (stream.is_none()) return 1;
    if (!PyLong_Check(stream.ptr()) || PyBool_Check(stream.ptr()))
        throw DTypeError("__dlpack__: stream must be an int or None, got " + py::repr(stream).cast<std::string>());
    const auto handle = stream.cast<std::intptr_t>();
    if (handle == 0)
        throw ValueError(
            "__dlpack__: stream 0 may be either of CUDA's default streams; give 1 for the legacy one, 2 "
            "for the thread's");
    if (handle < -1)
        throw ValueError("__dlpack__: stream must be -1, 1, 2 or a stream's address, got " + std::to_string(handle));
    return handle;
}

Offer in_host_memory(const DeviceArray& array, Place place) {
    const py::array host = array.numpy();
    std::vector<std::int64_t> strides(host.strides(), host.strides() + host.ndim());
    for (std::int64_t& stride : strides) stride /= host.itemsize();
    char* const data = const_cast<char*>(static_cast<const char*>(host.data()));
    return {data, place, array.dtype, array.shape, std::move(strides), host, dlpack::copied_flag};
}

Offer in_device_memory(const DeviceArray& array, Place place, std::intptr_t stream, bool copied) {
    const DeviceArray given = copied ? array.copy() : array;
    const CurrentDevice current(*array.device);
    if (copied) given.note_pending();
    given.note_given();
    if (stream != -1)
        array.device->let_stream_wait(at_address(stream));
    else
        given.wait_if_pending();  // nobody is to wait for it, so it is to be there
    std::uint64_t flags = copied ? dlpack::copied_flag : 0;
    if (given.read_only) flags |= dlpack::read_only_flag;
    return {given.data, place, given.dtype, given.shape, given.strides, given.owner, flags};
}

}  // namespace

py::object to_dlpack(const DeviceArray& array, const py::object& stream, const py::object& max_version,
                     const py::object& dl_device, const py::object& copy) {
    const bool versioned = is_versioned(max_version);
    const Place own = {dlpack::cuda, array.device->index()}, place = place_asked_for(dl_device, own);
    const bool to_host = place == Place{dlpack::cpu, 0};
    const std::intptr_t handle = to_host && stream.is_none() ? -1 : handle_of(stream);
    const bool never_copied = !copy.is_none() && !copy.cast<bool>();
    if (place != own && !to_host)
        throw BufferError("__dlpack__: the array is on " + array.device->name() + ", DLPack's device (2, " +
                          std::to_string(own.second) + "), and can be given there or on the CPU, (1, 0), got " +
                          py::repr(dl_device).cast<std::string>());
    if (to_host && never_copied)
        throw BufferError("__dlpack__: an array on " + array.device->name() +
                          " cannot be given on the CPU without a copy; leave copy=False out");
    const bool copied = !copy.is_none() && !never_copied;
    if (array.read_only && !copied && !to_host && !versioned)
        throw BufferError(
            "__dlpack__: the array is read-only, which DLPack before version 1 cannot say; ask with "
            "max_version=(1, 0), or for a copy");
    Offer offer = to_host ? in_host_memory(array, place) : in_device_memory(array, place, handle, copied);
    return versioned ? capsule_of<dlpack::VersionedManaged>(std::move(offer), dlpack::versioned_name)
                     : capsule_of<dlpack::Managed>(std::move(offer), dlpack::name);
}

py::object cuda_array_interface(const DeviceArray& array) {
    if (array.dtype.kind() == 'V') return py::none();
    const CurrentDevice current(*array.device);
    array.note_given();
    array.wait_if_pending();  // there are consumers who do not look at `stream`
    py::list strides;
    for (const std::int64_t stride : array.strides) strides.append(stride * array.dtype.itemsize());
    py::dict interface;
    interface["shape"] = py::tuple(py::cast(array.shape));
    interface["typestr"] = array.dtype.attr("str");
    const bool has_elements = array.size() > 0;
    interface["data"] =
        py::make_tuple(has_elements ? reinterpret_cast<std::uintptr_t>(array.data) : 0, array.read_only);
    interface["strides"] = array.is_dense() ? py::object(py::none()) : py::object(py::tuple(strides));
    interface["stream"] = reinterpret_cast<std::uintptr_t>(array.device->stream());
    interface["version"] = 3;
    return std::move(interface);
}

}  // namespace resnetcore

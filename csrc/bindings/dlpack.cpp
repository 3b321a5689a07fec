#include "bindings/dlpack.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "bindings/array.h"
#include "bindings/dlpack_structs.h"
#include "bindings/register.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

using namespace dlpack;

constexpr std::uint64_t read_only = 1;
constexpr int max_dimensions = 32;

// Runs the producer's deleter when the array that looks at its memory is gone.
template <class M>
void release(PyObject* owner) {
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(owner, PyCapsule_GetName(owner)));
    if (managed->deleter) managed->deleter(managed);
}

[[noreturn]] void refuse(const std::string& what, const std::string& why) { throw BufferError(what + ": " + why); }

void check(const Tensor& t, const std::string& what) {
    if (t.device_kind != cpu && t.device_kind != cuda_host && t.device_kind != rocm_host &&
        t.device_kind != cuda_managed)
        refuse(what, "the array is on a device of DLPack's kind " + std::to_string(t.device_kind) +
                         ", which this process cannot read; copy it to the CPU first");
    if (t.ndim < 0 || t.ndim > max_dimensions)
        refuse(what, "a DLPack array must have 0 to 32 dimensions, got " + std::to_string(t.ndim));
    if (t.ndim > 0 && !t.shape) refuse(what, "the DLPack array has dimensions but no shape");
    if (t.lanes != 1) refuse(what, "a DLPack array must have 1 lane in an element, got " + std::to_string(t.lanes));
    std::int64_t size = (t.bits + 7) / 8;
    bool empty = false;
    for (int i = 0; i < t.ndim; ++i) {
        if (t.shape[i] < 0) refuse(what, "a DLPack array has a negative size, " + std::to_string(t.shape[i]));
        empty |= t.shape[i] == 0;
        if (!empty && __builtin_mul_overflow(size, t.shape[i], &size))
            refuse(what, "the sizes of a DLPack array multiply to more than 2^63 bytes");
    }
    if (!empty && !t.data) refuse(what, "the DLPack array has elements but no data");
}

py::dtype dtype_of(const Tensor& t, const std::string& what, bool widen) {
    const char* kind = t.code == floating           ? "f"
                       : t.code == integer          ? "i"
                       : t.code == unsigned_integer ? "u"
                       : t.code == boolean          ? "b"
                                                    : nullptr;
    if (t.code == bfloat && t.bits == 16) return widen ? py::dtype("u2") : py::dtype::of<bfloat16>();
    const bool whole = t.bits == 8 || t.bits == 16 || t.bits == 32 || t.bits == 64;
    if (!kind || !whole || (t.code == floating && t.bits == 8) || (t.code == boolean && t.bits != 8))
        throw DTypeError(what + " has an element type that NumPy lacks (DLPack code " + std::to_string(t.code) + ", " +
                         std::to_string(t.bits) + " bits); convert it to float32 first");
    return py::dtype(kind + std::to_string(t.bits / 8));
}

std::vector<py::ssize_t> byte_strides(const Tensor& t, py::ssize_t item) {
    std::vector<py::ssize_t> strides(t.ndim);
    py::ssize_t next = item;
    for (int i = t.ndim - 1; i >= 0; --i) {
        strides[i] = t.strides ? t.strides[i] * item : next;
        next *= t.shape[i] > 0 ? t.shape[i] : 1;
    }
    return strides;
}

// A bfloat16 is the upper half of the float32 of the same value.
py::array widened(const py::array& halves) {
    py::array dense = py::array_t<std::uint16_t, py::array::c_style | py::array::forcecast>::ensure(halves);
    if (!dense) throw py::error_already_set();
    py::array_t<float> result(std::vector<py::ssize_t>(dense.shape(), dense.shape() + dense.ndim()));
    const auto* from = static_cast<const std::uint16_t*>(dense.data());
    float* to = result.mutable_data();
    for (py::ssize_t i = 0; i < dense.size(); ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(from[i]) << 16;
        std::memcpy(to + i, &bits, sizeof bits);
    }
    return std::move(result);
}

// Takes the capsule's content. Everything that may throw comes before the capsule is marked as used, or leaves `owner`
// to clean up.
template <class M>
py::array take(const py::capsule& capsule, const char* used_name, M* managed, bool writeable, const std::string& what,
               bool widen) {
    const Tensor& t = managed->tensor;
    check(t, what);
    const py::dtype dtype = dtype_of(t, what, widen);
    const std::vector<py::ssize_t> shape(t.shape, t.shape + t.ndim), strides = byte_strides(t, dtype.itemsize());
    static const char* const owner_name = "resnetcore.dlpack";
    // Without a destructor until the capsule is ours: should making the owner fail, the capsule still deletes.
    const auto owner = py::reinterpret_steal<py::object>(PyCapsule_New(managed, owner_name, nullptr));
    if (!owner || PyCapsule_SetName(capsule.ptr(), used_name) != 0) throw py::error_already_set();
    PyCapsule_SetDestructor(owner.ptr(), release<M>);
    void* data = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
    py::array array(dtype, shape, strides, data, owner);
    if (!writeable) array.attr("setflags")(py::arg("write") = false);
    return t.code == bfloat && widen ? widened(array) : array;
}

py::object capsule_of(const py::object& value, const std::string& what) {
    const py::object method = value.attr("__dlpack__");
    try {
        try {
            return method(py::arg("max_version") = py::make_tuple(known_major, 0));
        } catch (py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
            return method();  // a producer from before versions
        }
    } catch (py::error_already_set& error) {
        if (error.matches(PyExc_KeyboardInterrupt) || error.matches(PyExc_MemoryError)) throw;
        refuse(what, py::str(error.value()).cast<std::string>());
    }
}

}  // namespace

py::array from_dlpack(const py::object& value, const std::string& what, bool widen, bool written) {
    const py::object offered = capsule_of(value, what);
    if (!PyCapsule_CheckExact(offered.ptr())) refuse(what, "__dlpack__() returned no capsule");
    const auto capsule = py::reinterpret_borrow<py::capsule>(offered);
    const char* raw = PyCapsule_GetName(capsule.ptr());
    const std::string name = raw ? raw : "";
    if (name == "dltensor_versioned") {
        auto* managed = static_cast<VersionedManaged*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        if (managed->major > known_major)
            refuse(what, "the array comes in version " + std::to_string(managed->major) +
                             " of DLPack; version 1 and older are known");
        const bool writeable = !(managed->flags & read_only);
        if (written && !writeable) throw ValueError(what + " is written to, and it is read-only");
        return take(capsule, "used_dltensor_versioned", managed, writeable, what, widen);
    }
    if (name == "dltensor") {
        auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
        // It cannot say that it is read-only, and JAX's arrays, which never change, come so: NumPy takes none for
        // writable.
        if (written)
            throw ValueError(what +
                             " is written to, and it is read-only: it comes by a DLPack without a version, which "
                             "cannot say whether it may be written to; give a NumPy array of its memory or a copy, or "
                             "use a newer version of its library");
        return take(capsule, "used_dltensor", managed, false, what, widen);
    }
    const bool used = name.rfind("used_dltensor", 0) == 0;
    refuse(what, used ? "the DLPack capsule has been consumed already; ask for a new one"
                      : "__dlpack__() returned a capsule named '" + name + "', not a DLPack array");
}

void register_dlpack(py::module_& m) {
    m.def("from_dlpack", &from_dlpack, py::arg("value"), py::arg("what"), py::arg("widen") = true,
          py::arg("written") = false,
          "A NumPy array of the memory of any CPU array that speaks DLPack; bfloat16 becomes float32 where widened.");
    m.def("bfloat16_dtype", &py::dtype::of<bfloat16>, "The dtype that stands for bfloat16, which NumPy lacks.");
}

}  // namespace resnetcore

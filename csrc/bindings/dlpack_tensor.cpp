#include "bindings/dlpack_tensor.h"

#include "base/error.h"
#include "bindings/array.h"

namespace py = pybind11;

namespace resnetcore {
namespace dlpack {
namespace {

constexpr int max_dimensions = 32;

template <class M>
void release(PyObject* owner) {
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(owner, PyCapsule_GetName(owner)));
    if (managed->deleter) managed->deleter(managed);
}

}  // namespace

void refuse(const std::string& what, const std::string& why) { throw BufferError(what + ": " + why); }

bool check_sizes(const std::int64_t* shape, int ndim, std::int64_t item, const std::string& what) {
    std::int64_t bytes = item;
    bool empty = false;
    for (int i = 0; i < ndim; ++i) {
        if (shape[i] < 0) refuse(what, "the array has a negative size, " + std::to_string(shape[i]));
        empty |= shape[i] == 0;
        if (!empty && __builtin_mul_overflow(bytes, shape[i], &bytes))
            refuse(what, "the sizes of the array multiply to more than 2^63 bytes");
    }
    return !empty;
}

py::object ask(const py::object& value, const std::string& what, const py::object& stream) {
    const py::object method = value.attr("__dlpack__");
    py::dict arguments;
    if (!stream.is_none()) arguments["stream"] = stream;
    const py::dict unversioned = arguments.attr("copy")();
    arguments["max_version"] = py::make_tuple(known_major, 0);
    try {
        try {
            return method(**arguments);
        } catch (py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
            return method(**unversioned);
        }
    } catch (py::error_already_set& error) {
        if (error.matches(PyExc_KeyboardInterrupt) || error.matches(PyExc_MemoryError)) throw;
        refuse(what, py::str(error.value()).cast<std::string>());
    }
}

Offered::Offered(const py::object& capsule, const std::string& what) : what_(what) {
    if (!PyCapsule_CheckExact(capsule.ptr())) refuse(what, "__dlpack__() returned no capsule");
    capsule_ = py::reinterpret_borrow<py::capsule>(capsule);
    const char* raw = PyCapsule_GetName(capsule_.ptr());
    const std::string given = raw ? raw : "";
    versioned_ = given == versioned_name;
    if (given.rfind(used_name, 0) == 0) refuse(what, "the DLPack capsule has been consumed already; ask for a new one");
    if (!versioned_ && given != name)
        refuse(what, "__dlpack__() returned a capsule named '" + given + "', not a DLPack array");
    managed_ = PyCapsule_GetPointer(capsule_.ptr(), raw);
    if (versioned_) {
        const auto& managed = *static_cast<VersionedManaged*>(managed_);
        if (managed.major > known_major)
            refuse(what, "the array comes in version " + std::to_string(managed.major) +
                             " of DLPack; version 1 and older are known");
        read_only_ = managed.flags & read_only_flag;
        tensor_ = &managed.tensor;
    } else {
        // It cannot say whether it may be written to, and JAX's arrays, which never change, come so: NumPy, too, takes
        // none for writable.
        tensor_ = &static_cast<Managed*>(managed_)->tensor;
    }
    check();
}

void Offered::check() const {
    const Tensor& t = *tensor_;
    if (t.ndim < 0 || t.ndim > max_dimensions)
        refuse(what_, "a DLPack array must have 0 to 32 dimensions, got " + std::to_string(t.ndim));
    if (t.ndim > 0 && !t.shape) refuse(what_, "the DLPack array has dimensions but no shape");
    if (t.lanes != 1) refuse(what_, "a DLPack array must have 1 lane in an element, got " + std::to_string(t.lanes));
    const bool has_elements = check_sizes(t.shape, t.ndim, (t.bits + 7) / 8, what_);
    if (has_elements && !t.data) refuse(what_, "the DLPack array has elements but no data");
}

void Offered::check_writable(const char* instead) const {
    if (!read_only_) return;
    throw ValueError(what_ + " is written to, and it is read-only" +
                     (versioned_ ? ""
                                 : ": it comes by a DLPack without a version, which cannot say whether it may be "
                                   "written to; give " +
                                       std::string(instead) + ", or use a newer version of its library"));
}

py::dtype Offered::dtype() const {
    const Tensor& t = *tensor_;
    if (t.code == bfloat && t.bits == 16) return py::dtype::of<bfloat16>();
    const char* kind = t.code == floating           ? "f"
                       : t.code == integer          ? "i"
                       : t.code == unsigned_integer ? "u"
                       : t.code == boolean          ? "b"
                                                    : nullptr;
    const bool whole = t.bits == 8 || t.bits == 16 || t.bits == 32 || t.bits == 64;
    if (!kind || !whole || (t.code == floating && t.bits == 8) || (t.code == boolean && t.bits != 8))
        throw DTypeError(what_ + " has an element type that NumPy lacks (DLPack code " + std::to_string(t.code) + ", " +
                         std::to_string(t.bits) + " bits); convert it to float32 first");
    return py::dtype(kind + std::to_string(t.bits / 8));
}

void* Offered::data() const {
    return tensor_->data ? static_cast<char*>(tensor_->data) + tensor_->byte_offset : nullptr;
}

std::vector<std::int64_t> Offered::strides() const {
    const Tensor& t = *tensor_;
    std::vector<std::int64_t> strides(static_cast<std::size_t>(t.ndim));
    std::int64_t next = 1;
    for (int i = t.ndim - 1; i >= 0; --i) {
        strides[static_cast<std::size_t>(i)] = t.strides ? t.strides[i] : next;
        next *= t.shape[i] > 0 ? t.shape[i] : 1;
    }
    return strides;
}

py::object Offered::keep() {
    // Without a destructor until the capsule is ours: should making the owner fail, the capsule still deletes.
    auto owner = py::reinterpret_steal<py::object>(PyCapsule_New(managed_, "resnetcore.dlpack", nullptr));
    if (!owner || PyCapsule_SetName(capsule_.ptr(), versioned_ ? used_versioned_name : used_name) != 0)
        throw py::error_already_set();
    PyCapsule_SetDestructor(owner.ptr(), versioned_ ? release<VersionedManaged> : release<Managed>);
    return owner;
}

}  // namespace dlpack
}  // namespace resnetcore

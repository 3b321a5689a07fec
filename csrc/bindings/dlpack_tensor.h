// The structures of DLPack's C interface, versions 0 and 1 (https://dmlc.github.io/dlpack), and what a capsule of
// Python's offers in them.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

namespace resnetcore {
namespace dlpack {

enum DeviceKind : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, rocm_host = 11, cuda_managed = 13 };
enum TypeCode : std::uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4, boolean = 6 };

struct Tensor {
    void* data;
    std::int32_t device_kind, device_index;
    std::int32_t ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};

struct Managed {
    Tensor tensor;
    void* context;
    void (*deleter)(Managed*);
};

struct VersionedManaged {
    std::uint32_t major, minor;
    void* context;
    void (*deleter)(VersionedManaged*);
    std::uint64_t flags;
    Tensor tensor;
};

constexpr std::uint32_t known_major = 1;
constexpr std::uint64_t read_only_flag = 1, copied_flag = 2;
constexpr const char *name = "dltensor", *used_name = "used_dltensor";
constexpr const char *versioned_name = "dltensor_versioned", *used_versioned_name = "used_dltensor_versioned";

// Whatever is wrong with an array that is offered: BufferError, where `what` begins the message.
[[noreturn]] void refuse(const std::string& what, const std::string& why);

// Sizes that are negative, or too large together for elements of `item` bytes: BufferError. Whether there are elements.
bool check_sizes(const std::int64_t* shape, int ndim, std::int64_t item, const std::string& what);

// What `value.__dlpack__(max_version=…)` returns, with `stream` where there is one; producers from before versions are
// asked without. BufferError with the producer's words where it raises.
pybind11::object ask(const pybind11::object& value, const std::string& what, const pybind11::object& stream);

// What a capsule offers, sound wherever its memory may be. Its producer deletes it, unless it is kept.
class Offered {
public:
    // Throws BufferError.
    Offered(const pybind11::object& capsule, const std::string& what);

    const Tensor& tensor() const { return *tensor_; }
    bool is_versioned() const { return versioned_; }
    bool is_read_only() const { return read_only_; }
    // Its elements as NumPy's; bfloat16 as the record that stands for it (bindings/array.h). Throws DTypeError.
    pybind11::dtype dtype() const;
    void* data() const;
    std::vector<std::int64_t> shape() const { return {tensor_->shape, tensor_->shape + tensor_->ndim}; }
    std::vector<std::int64_t> strides() const;  // in elements

    // The array is ours: the producer's deleter runs when the object that is returned dies.
    pybind11::object keep();

private:
    void check() const;

    const std::string what_;
    pybind11::capsule capsule_;
    void* managed_ = nullptr;
    const Tensor* tensor_ = nullptr;
    bool versioned_ = false, read_only_ = true;
};

}  // namespace dlpack
}  // namespace resnetcore

// What a capsule of Python's offers in DLPack's structures.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/dlpack_structs.h"

namespace resnetcore {
namespace dlpack {

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
    // Throws ValueError where it is read-only; `instead`: of what comes without a version, which would do.
    void check_writable(const char* instead) const;
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

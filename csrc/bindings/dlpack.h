// Arrays of other libraries by DLPack (https://dmlc.github.io/dlpack), as NumPy arrays of the same memory.
#pragma once

#include <pybind11/numpy.h>

#include <string>

namespace resnetcore {

// Looks at what `value.__dlpack__()` offers. bfloat16, which NumPy lacks, becomes float32 in new memory, exactly, where
// `widen`; else it is the record that stands for it (bindings/array.h), in place.
// The producer's deleter runs once: when the array dies, or by the capsule's own destructor where this throws.
// `what` begins the messages. Throws BufferError where the capsule is not sound or not on this machine's memory, and
// ValueError where it is read-only and to be `written`.
pybind11::array from_dlpack(const pybind11::object& value, const std::string& what, bool widen, bool written);

}  // namespace resnetcore

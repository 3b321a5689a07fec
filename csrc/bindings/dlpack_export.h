// Arrays in a GPU's memory, offered to other libraries by DLPack and by __cuda_array_interface__.
#pragma once

#include "bindings/device_array.h"

namespace resnetcore {

// As the Python array API standard's `__dlpack__`. Throws ValueError for a stream or a `max_version` that is none, and
// BufferError for what cannot be had.
pybind11::object to_dlpack(const DeviceArray& array, const pybind11::object& stream,
                           const pybind11::object& max_version, const pybind11::object& dl_device,
                           const pybind11::object& copy);

// Version 3; None where the elements have no typestr.
pybind11::object cuda_array_interface(const DeviceArray& array);

}  // namespace resnetcore

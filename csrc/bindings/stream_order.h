// A stream of the caller's as Python names it, for a StreamOrder (runtime/stream_order.h).
#pragma once

#include <pybind11/pybind11.h>

#include "runtime/stream_order.h"

namespace resnetcore {

// None, which is null, or a cudaStream_t's address; `operation` begins what is said of another.
void* named_stream(const pybind11::object& stream, const char* operation);

// Before results are made, in memory that such a stream's work may still be reading, and before arguments are looked
// at: work on the device comes after what the stream was given so far.
void wait_for_stream(CudaDevice& device, const pybind11::object& stream, const char* operation);

}  // namespace resnetcore

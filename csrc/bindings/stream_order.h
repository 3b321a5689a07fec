// The order of one call's work on a GPU beside a stream of the caller's.
//
// Invariant: what that stream was given before the call comes before the call's work, and what it is given after the
// call, after it, whether the call returns or throws. So memory whose reuse the stream orders may be lent to the call.
// Where the caller names no stream, the call waits for its work instead.
#pragma once

#include <pybind11/pybind11.h>

#include "runtime/cuda_device.h"

namespace resnetcore {

// Before results are made, in memory that such a stream's work may still be reading, and before arguments are looked
// at: work on the device comes after what the stream was given so far. Its arguments are those of StreamOrder's
// constructor.
void wait_for_stream(CudaDevice& device, const pybind11::object& stream, const char* operation);

class StreamOrder {
public:
    // `stream`: None, or a cudaStream_t's address as Python names it; `operation` begins what is said of another.
    StreamOrder(CudaDevice& device, const pybind11::object& stream, const char* operation);
    ~StreamOrder();
    StreamOrder(const StreamOrder&) = delete;

    // At the end of the work, without the GIL: throws what went wrong with it so far.
    void finish();

private:
    const CurrentDevice current_;
    CudaDevice& device_;
    void* stream_ = nullptr;  // null: none
    bool finished_ = false;
};

}  // namespace resnetcore

// The order of one call's work on a GPU beside a stream of the caller's.
//
// Invariant: what that stream was given before the call comes before the call's work, and what it is given after the
// call, after it, whether the call returns or throws. So memory whose reuse the stream orders may be lent to the call.
// Where the caller names no stream, the call waits for its work instead.
#pragma once

#include "runtime/cuda_device.h"

namespace resnetcore {

class StreamOrder {
public:
    // `stream`: a cudaStream_t, or null for none.
    StreamOrder(CudaDevice& device, void* stream);
    ~StreamOrder();
    StreamOrder(const StreamOrder&) = delete;

    // At the end of the work: throws what went wrong with it so far.
    void finish();
    // Instead, where all that touches the call's memory from now on is the device's own next work: nobody waits, and
    // what went wrong with the launches is thrown.
    void leave();

private:
    const CurrentDevice current_;
    CudaDevice& device_;
    void* const stream_;
    bool finished_ = false;
};

}  // namespace resnetcore

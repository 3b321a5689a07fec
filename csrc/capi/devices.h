// Devices and streams as resnetcore.h numbers them, and the order of a call's work beside the caller's.
#pragma once

#include <optional>
#include <string>

#include "capi/arguments.h"
#include "runtime/stream_order.h"

namespace resnetcore::capi {

// "cpu" or "cuda:1". Throws ValueError for a number that is none, naming the operation and the argument.
std::string device_text(rc_device device, const char* operation, const std::string& argument);
// The device itself. Throws DeviceError as well, where it cannot be had.
Device& device_of(rc_device number, const char* operation, const std::string& argument);
rc_device number_of(const Device& device);

// Around a call's work on its checked arguments: in the order of the stream that is named; without one, after what
// CUDA's default stream has been given, where there are arguments on a GPU, and waited for.
class CallOrder {
public:
    // Throws ValueError for a stream of work that is the CPU's.
    CallOrder(const Arguments& arguments, rc_stream stream);
    // At the end of the work: throws what went wrong with it so far.
    void finish();

private:
    std::optional<StreamOrder> order_;
};

}  // namespace resnetcore::capi

#include "bindings/stream_order.h"

#include <exception>

#include "base/error.h"
#include "bindings/device_array.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

void* named_stream(const py::object& stream, const char* operation) {
    if (stream.is_none()) return nullptr;
    const std::string what = std::string(operation) + ": stream must be None or a cudaStream_t's address";
    if (!PyLong_Check(stream.ptr()) || PyBool_Check(stream.ptr()))
        throw DTypeError(what + ", an int, got " + py::repr(stream).cast<std::string>());
    const auto address = stream.cast<std::intptr_t>();
    if (address <= 0)
        throw ValueError(what + ", got " + std::to_string(address) +
                         "; give 1 for the legacy default stream, 2 for the thread's");
    return at_address(address);
}

}  // namespace

void wait_for_stream(CudaDevice& device, const py::object& stream, const char* operation) {
    void* const named = named_stream(stream, operation);
    if (!named) return;
    const CurrentDevice current(device);
    device.wait_for_stream(named);
}

StreamOrder::StreamOrder(CudaDevice& device, const py::object& stream, const char* operation)
    : current_(device), device_(device), stream_(named_stream(stream, operation)) {
    if (stream_) device_.wait_for_stream(stream_);
}

StreamOrder::~StreamOrder() {
    try {
        if (!finished_) finish();
    } catch (const std::exception&) {
        return;  // the call throws another already
    }
}

void StreamOrder::finish() {
    finished_ = true;
    if (stream_)
        device_.let_stream_wait(stream_);
    else
        device_.synchronize();
}

}  // namespace resnetcore

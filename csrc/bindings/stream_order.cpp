#include "bindings/stream_order.h"

#include "base/error.h"
#include "bindings/device_array.h"

namespace py = pybind11;

namespace resnetcore {

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

void wait_for_stream(CudaDevice& device, const py::object& stream, const char* operation) {
    void* const named = named_stream(stream, operation);
    if (!named) return;
    const CurrentDevice current(device);
    device.wait_for_stream(named);
}

}  // namespace resnetcore

// rc_find_device, rc_device_name, rc_cuda_count, and what the calls with devices share.
#include "capi/devices.h"

#include <cstdio>

#include "base/error.h"
#include "capi/guarded.h"
#include "runtime/cuda_module.h"

namespace resnetcore::capi {
namespace {

constexpr int most_gpus = 1000;  // as a device's name has room for

bool known_device(rc_device device) { return device >= RC_CPU && device < RC_CUDA + most_gpus; }

}  // namespace

std::string device_text(rc_device device, const char* operation, const std::string& argument) {
    if (!known_device(device))
        throw ValueError(std::string(operation) + ": " + argument + ": there is no device " + std::to_string(device) +
                         "; RC_CPU is one, and RC_CUDA + i the GPU number i");
    return device == RC_CPU ? "cpu" : "cuda:" + std::to_string(device - RC_CUDA);
}

Device& device_of(rc_device number, const char* operation, const std::string& argument) {
    return find_device(device_text(number, operation, argument));
}

rc_device number_of(const Device& device) {
    const auto* const gpu = dynamic_cast<const CudaDevice*>(&device);
    return gpu ? RC_CUDA + gpu->index() : RC_CPU;
}

CallOrder::CallOrder(const Arguments& arguments, rc_stream stream) {
    auto* const gpu = dynamic_cast<CudaDevice*>(&arguments.home());
    if (stream && !gpu)
        throw ValueError(std::string(arguments.operation()) +
                         ": stream orders work on a GPU, and this is the CPU's; give NULL");
    if (!stream && !arguments.any_on_gpu()) return;
    order_.emplace(*gpu, stream);
    if (!stream) gpu->wait_for_default_stream();
}

void CallOrder::finish() {
    if (order_) order_->finish();
}

}  // namespace resnetcore::capi

using namespace resnetcore::capi;

rc_status rc_find_device(const char* name, rc_device* device) {
    return guarded([&] {
        require(name, "rc_find_device", "name");
        require(device, "rc_find_device", "device");
        *device = number_of(resnetcore::find_device(name));
    });
}

const char* rc_device_name(rc_device device) {
    thread_local char name[16];
    if (!known_device(device)) return nullptr;
    if (device == RC_CPU) return "cpu";
    std::snprintf(name, sizeof name, "cuda:%d", static_cast<int>(device - RC_CUDA));
    return name;
}

rc_status rc_cuda_count(int* count) {
    return guarded([&] {
        require(count, "rc_cuda_count", "count");
        *count = resnetcore::count_gpus(resnetcore::cuda_module());
    });
}

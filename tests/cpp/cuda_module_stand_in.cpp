// A CUDA module without CUDA. It says of itself, the driver and the GPUs what environment variables tell it to, so that
// tests/test_cuda_device.py sees every reason why there is no device; it can allocate, copy and run nothing.
#include <cstdlib>

#include "kernels/cuda/module.h"

namespace {

int number(const char* name) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : 0;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const resnetcore::CudaModule* resnetcore_cuda_module() {
    static const resnetcore::CudaModule module = [] {
        resnetcore::CudaModule m = {};
        m.version = resnetcore::cuda_module_version + number("STAND_IN_VERSION");
        m.architectures = [] { return "sm_80 sm_90a compute_90"; };
        m.runtime_version = [] { return 13000; };
        m.driver_version = [] { return number("STAND_IN_DRIVER"); };
        m.device_count = [] { return number("STAND_IN_GPUS"); };
        m.device_name = [](int device) { return device ? "Second GPU" : "First GPU"; };
        m.compute_capability = [](int device) { return device ? 70 : 90; };
        m.check_device = [](int device) { return device ? 209 : number("STAND_IN_STATUS"); };
        m.choose_path = [](int, const char* name) { return name && *name ? 1 : 0; };
        m.last_error = [] { return "the stand-in's words"; };
        return m;
    }();
    return &module;
}

#include "kernels/cuda/status.h"

#include <cstdio>
#include <cstring>

namespace resnetcore {
namespace cuda {
namespace {

thread_local char words[512] = "";
thread_local int status = 0;

// CUDA's words of these (driver_types.h): the process must be terminated and launched again.
bool ends_all_work(cudaError_t error) {
    switch (error) {
        case cudaErrorIllegalAddress:
        case cudaErrorLaunchTimeout:
        case cudaErrorAssert:
        case cudaErrorHardwareStackError:
        case cudaErrorIllegalInstruction:
        case cudaErrorMisalignedAddress:
        case cudaErrorInvalidAddressSpace:
        case cudaErrorInvalidPc:
        case cudaErrorLaunchFailure:
            return true;
        default:
            return false;
    }
}

}  // namespace

int report(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return 0;
    const int name = static_cast<int>(std::strcspn(call, "("));  // its arguments say nothing to a reader
    const char* remedy = ends_all_work(error) ? "; CUDA does nothing more for this process: start it again, with "
                                                "CUDA_LAUNCH_BLOCKING=1 to find out whose kernel it was"
                                              : "";
    std::snprintf(words, sizeof words, "%.*s: %s (%s)%s", name, call, cudaGetErrorString(error),
                  cudaGetErrorName(error), remedy);
    cudaGetLastError();
    return status = static_cast<int>(error);
}

int refuse(const char* why) {
    std::snprintf(words, sizeof words, "%s", why);
    return status = static_cast<int>(cudaErrorInvalidValue);
}

const char* last_error() { return words; }
int last_status() { return status; }

}  // namespace cuda
}  // namespace resnetcore

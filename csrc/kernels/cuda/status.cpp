#include "kernels/cuda/status.h"

#include <cstdio>
#include <cstring>

namespace resnetcore {
namespace cuda {
namespace {

thread_local char words[512] = "";
thread_local int status = 0;

}  // namespace

int report(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return 0;
    const int name = static_cast<int>(std::strcspn(call, "("));  // its arguments say nothing to a reader
    std::snprintf(words, sizeof words, "%.*s: %s (%s)", name, call, cudaGetErrorString(error), cudaGetErrorName(error));
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

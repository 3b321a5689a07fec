#include "kernels/cuda/driver.h"

#include <cuda_runtime_api.h>

namespace resnetcore {
namespace cuda {

void* find_in_driver(const char* function) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    constexpr unsigned since = 12000;
    const cudaError_t error = cudaGetDriverEntryPointByVersion(function, &found, since, cudaEnableDefault, &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(function, &found, cudaEnableDefault, &result);
#endif
    if (error == cudaSuccess && result == cudaDriverEntryPointSuccess) return found;
    cudaGetLastError();  // or nothing would be launched after it
    return nullptr;
}

}  // namespace cuda
}  // namespace resnetcore

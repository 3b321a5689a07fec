// Where the calling thread's work goes: its device's one stream, or while it records, a stream of its own.
//
// Kernels are launched on it and nowhere else. An error of a launch is left to CUDA, which is asked where work is
// waited for or left to others: kernels do not call cudaGetLastError, and never wait.
#pragma once

#include <cuda_runtime_api.h>

namespace resnetcore {
namespace cuda {

cudaStream_t current_stream();

}  // namespace cuda
}  // namespace resnetcore

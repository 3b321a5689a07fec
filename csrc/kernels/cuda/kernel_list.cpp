#include "kernels/cuda/kernel_list.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/status.h"

namespace resnetcore {
namespace cuda {
namespace {

// Without a constructor, so that it is there before the first kernel of any file is listed.
const ListedKernel* last = nullptr;

}  // namespace

ListedKernel::ListedKernel(const void* function) : function_(function), next_(last) { last = this; }

// Asking for a kernel's attributes loads it (CUDA Programming Guide, "Lazy Loading").
int load_kernels() {
    cudaFuncAttributes attributes;
    for (const ListedKernel* kernel = last; kernel; kernel = kernel->next_)
        RC_CUDA_TRY(cudaFuncGetAttributes(&attributes, kernel->function_));
    return 0;
}

}  // namespace cuda
}  // namespace resnetcore

// How a kernel is started: on the calling thread's stream, and without the `<<<>>>` that nvcc alone can read, so that
// any C++ compiler builds the same files for the emulation (tests/cuda_emulation).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {

template <class T>
struct Same {
    using Type = T;
};

// A failure is the run time's last error, which the module reports where work is waited for. Until then nothing else is
// launched: the update that follows must not be made of what a kernel would have written that never ran.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads,
            const typename Same<Parameters>::Type&... arguments) {
    if (cudaPeekAtLastError() != cudaSuccess) return;
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
    (void)cudaLaunchKernel(kernel, grid, dim3(threads), pointers, 0, current_stream());
}

}  // namespace cuda
}  // namespace resnetcore

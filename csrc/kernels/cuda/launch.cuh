// How a kernel is started: on the calling thread's stream, and without the `<<<>>>` that nvcc alone can read, so that
// any C++ compiler builds the same files for the emulation (tests/cuda_emulation).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

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
void launch_with(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes,
                 const typename Same<Parameters>::Type&... arguments) {
    constexpr std::size_t always_there = 48 << 10;  // of dynamic shared memory
    if (cudaPeekAtLastError() != cudaSuccess) return;
    if (shared_bytes > always_there &&
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)) != cudaSuccess)
        return;
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
    (void)cudaLaunchKernel(kernel, grid, dim3(threads), pointers, shared_bytes, current_stream());
}
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads,
            const typename Same<Parameters>::Type&... arguments) {
    launch_with(kernel, grid, threads, 0, arguments...);
}

}  // namespace cuda
}  // namespace resnetcore

// How a kernel is started: on the calling thread's stream, and without the `<<<>>>` that nvcc alone can read, so that
// any C++ compiler builds the same files for the emulation (tests/cuda_emulation).
//
// Invariant: what can be launched is listed (kernels/cuda/kernel_list.h), because naming it here lists it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {

template <auto kernel>
struct Launch;
template <class... Parameters, void (*kernel)(Parameters...)>
struct Launch<kernel> {
    static inline const ListedKernel listed{reinterpret_cast<const void*>(kernel)};

    // A failure is the run time's last error, which the module reports where work is waited for. Until then nothing
    // else is launched: the update that follows must not be made of what a kernel would have written that never ran.
    static void run(dim3 grid, int threads, std::size_t shared_bytes, const Parameters&... arguments) {
        // Of dynamic shared memory. What a kernel may have is asked for as a whole, always the same: it is the
        // kernel's, not the launch's, and another thread's smaller launch must not lower it in between.
        constexpr std::size_t always_there = 48 << 10, most = 227 << 10;
        (void)&listed;  // or it would not be there
        if (cudaPeekAtLastError() != cudaSuccess) return;
        if (shared_bytes > always_there &&
            cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(most)) != cudaSuccess)
            return;
        void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
        (void)cudaLaunchKernel(kernel, grid, dim3(threads), pointers, shared_bytes, current_stream());
    }
};

template <auto kernel, class... Arguments>
void launch(dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(grid, threads, 0, arguments...);
}
// With so many bytes of dynamic shared memory for each block.
template <auto kernel, class... Arguments>
void launch_with(std::size_t shared_bytes, dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(grid, threads, shared_bytes, arguments...);
}

}  // namespace cuda
}  // namespace resnetcore

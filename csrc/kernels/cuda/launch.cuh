// How a kernel is started: on the calling thread's stream, and without the `<<<>>>` that nvcc alone can read, so that
// any C++ compiler builds the same files for the emulation (tests/cuda_emulation).
//
// Invariant: what can be launched is listed (kernels/cuda/kernel_list.h), because naming it here lists it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {

// Launched ahead, a kernel's blocks come to multiprocessors that the kernel before it leaves free, once that one's
// blocks are through this call themselves, or at its end; and wait here, all threads, until it is complete and what it
// wrote is seen (PTX ISA, "griddepcontrol"). So between two such kernels lies nothing of launching. Whoever is launched
// so calls this before it touches anything that others write or read.
__device__ __forceinline__ void begin_ahead() {
#if defined(RESNETCORE_CUDA_EMULATION)
    emulation::begins_ahead();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// A kernel of few blocks, where the device does it: of two that take every multiprocessor, one is in the other's way.
inline bool goes_ahead(dim3 grid) {
    return launches_ahead() && 2 * std::int64_t{grid.x} * grid.y * grid.z <= processor_count();
}

// When a kernel's blocks begin: as multiprocessors become free, those of the kernel before done; ahead of its end; or
// all of them at a time, as they wait for each other.
enum class Begins { in_turn, ahead, together };

template <auto kernel>
struct Launch;
template <class... Parameters, void (*kernel)(Parameters...)>
struct Launch<kernel> {
    static inline const ListedKernel listed{reinterpret_cast<const void*>(kernel)};

    // A failure is the run time's last error, which the module reports where work is waited for. Until then nothing
    // else is launched: the update that follows must not be made of what a kernel would have written that never ran.
    // `most`: bytes of dynamic shared memory that the kernel may have, the same for all its launches: they are the
    // kernel's, not the launch's, and another thread's smaller launch must not lower them in between.
    static void run(Begins begins, dim3 grid, int threads, std::size_t shared_bytes, std::size_t most,
                    const Parameters&... arguments) {
        constexpr std::size_t always_there = 48 << 10;
        (void)&listed;  // or it would not be there
        if (cudaPeekAtLastError() != cudaSuccess) return;
        if (shared_bytes > always_there &&
            cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(most)) != cudaSuccess)
            return;
        cudaLaunchAttribute attribute = {};
        if (begins == Begins::together) {
            attribute.id = cudaLaunchAttributeCooperative;
            attribute.val.cooperative = 1;
        } else {
            attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
            attribute.val.programmaticStreamSerializationAllowed = 1;
        }
        cudaLaunchConfig_t config = {};
        config.gridDim = grid, config.blockDim = dim3(static_cast<unsigned>(threads));
        config.dynamicSmemBytes = shared_bytes, config.stream = current_stream();
        config.attrs = &attribute, config.numAttrs = begins == Begins::in_turn ? 0 : 1;
        (void)cudaLaunchKernelEx(&config, kernel, arguments...);
    }
};

// What a block may have on Hopper, whose kernels are launched with more or less of it.
constexpr std::size_t most_on_hopper = 227 << 10;

template <auto kernel, class... Arguments>
void launch(dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(Begins::in_turn, grid, threads, 0, 0, arguments...);
}
// With so many bytes of dynamic shared memory for each block, in all launches.
template <auto kernel, std::size_t shared_bytes, class... Arguments>
void launch_with(dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(Begins::in_turn, grid, threads, shared_bytes, shared_bytes, arguments...);
}
// With so many in this one, on Hopper.
template <auto kernel, class... Arguments>
void launch_with(std::size_t shared_bytes, dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(Begins::in_turn, grid, threads, shared_bytes, most_on_hopper, arguments...);
}
// Of no more blocks than there is room for at a time, which may then wait for each other (hopper/meeting.cuh). Refused
// where there are more.
template <auto kernel, class... Arguments>
void launch_together(std::size_t shared_bytes, dim3 grid, int threads, const Arguments&... arguments) {
    Launch<kernel>::run(Begins::together, grid, threads, shared_bytes, most_on_hopper, arguments...);
}
// Of kernels that call `begin_ahead`.
template <auto kernel, class... Arguments>
void launch_ahead(std::size_t shared_bytes, dim3 grid, int threads, const Arguments&... arguments) {
    const Begins begins = goes_ahead(grid) ? Begins::ahead : Begins::in_turn;
    Launch<kernel>::run(begins, grid, threads, shared_bytes, most_on_hopper, arguments...);
}

}  // namespace cuda
}  // namespace resnetcore

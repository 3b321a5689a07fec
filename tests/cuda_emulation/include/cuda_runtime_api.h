// Stands in for CUDA's header of this name: what host code of the kernels uses of it.
#pragma once

#include <cstddef>
#include <functional>
#include <tuple>

#include "kernels/cuda/path.h"

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {
class Stream;
// Refused, as the calling thread's last error, where CUDA has no such grid or block, or has not been told that the
// kernel takes so much dynamic shared memory; or where its blocks begin `together` and the device has too few
// multiprocessors for one each.
void launch(Stream* stream, const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, bool together,
            std::function<void()> thread);

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Of the thread that began last: each begins before another does.
inline thread_local bool waits_for_those_before = false;
inline void begins_ahead() { waits_for_those_before = true; }
}  // namespace emulation

#define CUDART_VERSION 13000

using cudaStream_t = emulation::Stream*;
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorCooperativeLaunchTooLarge = 720
};
// The calling thread's; the latter forgets it.
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetLastError();

enum cudaLaunchAttributeID {
    cudaLaunchAttributeCooperative = 2,
    cudaLaunchAttributeProgrammaticStreamSerialization = 6
};
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    union {
        int cooperative;
        int programmaticStreamSerializationAllowed;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};
// Arguments are copied here and now, as CUDA does; the kernel runs when the stream gets to it: after those before it.
// Where it might begin earlier, it must say that it waits for them.
template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Parameters&... arguments) {
    const auto begins = [config](cudaLaunchAttributeID id, int value) {
        return config->numAttrs > 0 && config->attrs->id == id && value != 0;
    };
    const bool ahead = begins(cudaLaunchAttributeProgrammaticStreamSerialization,
                              config->attrs->val.programmaticStreamSerializationAllowed);
    const bool together = begins(cudaLaunchAttributeCooperative, config->attrs->val.cooperative);
    if (ahead && !resnetcore::cuda::is_hopper(resnetcore::cuda::current_path()))
        emulation::fail("a kernel is launched ahead, which GPUs before Hopper do not know");
    const auto thread = [kernel, ahead, values = std::tuple<Parameters...>(arguments...)] {
        emulation::waits_for_those_before = !ahead;
        std::apply(kernel, values);
        if (!emulation::waits_for_those_before) emulation::fail("a kernel does not wait for the one before it");
    };
    emulation::launch(config->stream, reinterpret_cast<const void*>(kernel), config->gridDim, config->blockDim,
                      config->dynamicSmemBytes, together, thread);
    return cudaPeekAtLastError();
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

cudaError_t cudaDriverGetVersion(int* version);

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
enum { cudaEnableDefault = 0 };
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* result);

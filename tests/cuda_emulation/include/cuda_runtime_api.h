// Stands in for CUDA's header of this name: what host code of the kernels uses of it.
#pragma once

#include <cstddef>
#include <functional>
#include <tuple>
#include <utility>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {
class Stream;
// Refused, as the calling thread's last error, where CUDA has no such grid or block, or has not been told that the
// kernel takes so much dynamic shared memory.
void launch(Stream* stream, const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
            std::function<void()> thread);
}  // namespace emulation

#define CUDART_VERSION 13000

using cudaStream_t = emulation::Stream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
// The calling thread's; the latter forgets it.
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetLastError();

// Arguments are copied here and now, as CUDA does; the kernel runs when the stream gets to it.
template <class... Parameters, std::size_t... index>
std::function<void()> bind_kernel(void (*kernel)(Parameters...), void** arguments, std::index_sequence<index...>) {
    return [kernel, values = std::tuple<Parameters...>(*static_cast<Parameters*>(arguments[index])...)] {
        std::apply(kernel, values);
    };
}
template <class... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                             std::size_t shared_bytes, cudaStream_t stream) {
    emulation::launch(stream, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                      bind_kernel(kernel, arguments, std::index_sequence_for<Parameters...>()));
    return cudaPeekAtLastError();
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
enum { cudaEnableDefault = 0 };
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* result);

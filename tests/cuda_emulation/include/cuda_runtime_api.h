// Stands in for CUDA's header of this name: what host code of the kernels uses of it.
#pragma once

#include <functional>
#include <tuple>
#include <utility>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {
class Stream;
// Refused, as the calling thread's last error, where CUDA has no such grid or block.
void launch(Stream* stream, dim3 grid, dim3 block, std::function<void()> thread);
}  // namespace emulation

using cudaStream_t = emulation::Stream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
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
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments, std::size_t,
                             cudaStream_t stream) {
    emulation::launch(stream, grid, block, bind_kernel(kernel, arguments, std::index_sequence_for<Parameters...>()));
    return cudaPeekAtLastError();
}

#include "kernels/cuda/pinned.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/context.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {
namespace {

// What is no larger goes by the stream of work itself, behind a step in flight: two calls that put another stream in
// step with it would take longer than the copy.
constexpr std::size_t few_bytes = 1024;

constexpr const char* recorded = "a recorded sequence cannot reach the host's memory";

}  // namespace

void* allocate_pinned(std::size_t bytes) {
    void* memory = nullptr;
    bytes = std::max<std::size_t>(bytes, 1);
    return report(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), "cudaHostAlloc") ? nullptr : memory;
}

void release_pinned(void* memory) {
    if (memory) report(cudaFreeHost(memory), "cudaFreeHost");
}

int send(void* to, const void* from, std::size_t bytes) {
    if (is_recording()) return refuse(recorded);
    const Context& context = *current_context();
    if (bytes <= few_bytes) {
        RC_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context.stream));
        return 0;
    }
    RC_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context.copies));
    // Whose event it is by the time of the second call is no matter: a later one is behind this copy as well.
    RC_CUDA_TRY(cudaEventRecord(context.sent, context.copies));
    RC_CUDA_TRY(cudaStreamWaitEvent(context.stream, context.sent, 0));
    return 0;
}

int fetch(void* to, const void* from, std::size_t bytes) {
    if (is_recording()) return refuse(recorded);
    RC_CUDA_TRY(cudaGetLastError());
    RC_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, current_stream()));
    return 0;
}

void* make_mark() {
    cudaEvent_t event = nullptr;
    const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    return report(error, "cudaEventCreateWithFlags") ? nullptr : event;
}

int set_mark(void* mark) {
    if (is_recording()) return refuse(recorded);
    RC_CUDA_TRY(cudaEventRecord(static_cast<cudaEvent_t>(mark), current_stream()));
    return 0;
}

int wait_for(void* mark) {
    RC_CUDA_TRY(cudaEventSynchronize(static_cast<cudaEvent_t>(mark)));
    return 0;
}

void discard_mark(void* mark) {
    if (mark) report(cudaEventDestroy(static_cast<cudaEvent_t>(mark)), "cudaEventDestroy");
}

}  // namespace cuda
}  // namespace resnetcore

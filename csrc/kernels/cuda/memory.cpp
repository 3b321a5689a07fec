#include "kernels/cuda/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/context.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {
namespace {

constexpr const char* captured =
    "the stream is being captured into a CUDA graph, which cannot hold this call; make it outside of the capture "
    "(with torch.compile: not in mode=\"reduce-overhead\")";
constexpr const char* recorded = "a recorded sequence cannot wait, nor read or write the caller's memory";

// An event of a stream that is captured would draw ours, which all threads share, into the capture.
int refuse_captured(cudaStream_t stream) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(stream, &capture);
    if (error == cudaErrorStreamCaptureImplicit) {  // the default stream, in step with one that is
        cudaGetLastError();
        return refuse(captured);
    }
    if (error != cudaSuccess) return report(error, "cudaStreamIsCapturing");
    return capture == cudaStreamCaptureStatusNone ? 0 : refuse(captured);
}

// The second stream waits for what the first has been given so far.
int order(cudaStream_t first, cudaStream_t second) {
    cudaEvent_t event = nullptr;
    RC_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    int status = report(cudaEventRecord(event, first), "cudaEventRecord");
    if (!status) status = report(cudaStreamWaitEvent(second, event, 0), "cudaStreamWaitEvent");
    cudaEventDestroy(event);  // CUDA keeps it until nobody waits for it
    return status;
}

}  // namespace

// Not on a recording's stream: it is to be there when the recording is played, which does not allocate again.
void* allocate_unset(std::size_t bytes) {
    const Context& context = *current_context();
    void* memory = nullptr;
    bytes = std::max<std::size_t>(bytes, 1);
    const cudaError_t error = cudaMallocFromPoolAsync(&memory, bytes, context.pool, context.stream);
    return report(error, "cudaMallocFromPoolAsync") ? nullptr : memory;
}

void* allocate(std::size_t bytes) {
    const Context& context = *current_context();
    void* memory = allocate_unset(bytes);
    if (memory && report(cudaMemsetAsync(memory, 0, bytes, context.stream), "cudaMemsetAsync")) {
        release(context.device, memory);
        return nullptr;
    }
    return memory;
}

// It goes after what the device's stream has been given so far.
void release(int device, void* memory) {
    if (!memory) return;
    if (const Context* owner = context_of(device)) report(cudaFreeAsync(memory, owner->stream), "cudaFreeAsync");
}

int upload(void* to, const void* from, std::size_t bytes) {
    if (is_recording()) return refuse(recorded);
    Context& context = *current_context();
    return context.staging.upload(to, from, bytes, context.stream);
}

int download(void* to, const void* from, std::size_t bytes) {
    if (is_recording()) return refuse(recorded);
    RC_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, current_stream()));
    return synchronize();
}

int copy(void* to, const void* from, std::size_t bytes) {
    RC_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, current_stream()));
    return 0;
}

int clear(void* memory, std::size_t bytes) {
    RC_CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, current_stream()));
    return 0;
}

int synchronize() {
    if (is_recording()) return refuse(recorded);
    const cudaError_t launch = cudaGetLastError();  // of this thread's launches, which return nothing
    // In any case: a download may still be writing to the caller's memory.
    const int status = report(cudaStreamSynchronize(current_stream()), "cudaStreamSynchronize");
    return launch == cudaSuccess ? status : report(launch, "cudaLaunchKernel");
}

int check_launches() {
    RC_CUDA_TRY(cudaGetLastError());
    return 0;
}

int wait_for_stream(void* other) {
    const auto stream = static_cast<cudaStream_t>(other);
    const int status = refuse_captured(stream);
    return status ? status : order(stream, current_stream());
}

int let_stream_wait(void* other) {
    const cudaError_t launch = cudaGetLastError();  // as above: who goes on in another stream asks nowhere else
    const auto stream = static_cast<cudaStream_t>(other);
    int status = refuse_captured(stream);
    if (!status) status = order(current_stream(), stream);
    return launch == cudaSuccess ? status : report(launch, "cudaLaunchKernel");
}

}  // namespace cuda
}  // namespace resnetcore

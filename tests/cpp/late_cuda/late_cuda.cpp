#include "late_cuda.h"

#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

namespace late_cuda {
std::size_t memory_left = std::size_t{1} << 30;
cudaError_t error_of_a_launch = cudaSuccess;
std::set<const void*> kernels;
bool destroyed_while_it_played = false;
int blocks = 0;
std::set<int> contexts;
cudaStream_t captured = nullptr;
}  // namespace late_cuda

using Work = std::function<void()>;

struct LateStream {
    std::deque<Work> waiting;
    std::size_t done = 0;

    std::size_t end() const { return done + waiting.size(); }
    void run_until(std::size_t position) {
        while (done < position && !waiting.empty()) {
            const Work work = std::move(waiting.front());
            waiting.pop_front();
            ++done;
            work();
        }
    }
};
// Who waits for an event keeps a copy, as it may be destroyed before.
struct LateEvent {
    LateStream* stream = nullptr;
    std::size_t position = 0;
};
struct LateGraph {
    std::vector<Work> works;
    int playing = 0;
};

namespace {

thread_local int device = 0;
const cudaStream_t legacy_default = reinterpret_cast<cudaStream_t>(1);

cudaError_t give(LateStream* stream, Work work) {
    stream->waiting.push_back(std::move(work));
    return cudaSuccess;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration" : "cudaErrorOther";
}
cudaError_t cudaGetLastError() { return std::exchange(late_cuda::error_of_a_launch, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return late_cuda::error_of_a_launch; }
cudaError_t cudaSetDevice(int index) {
    device = index;
    late_cuda::contexts.insert(index);
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* index) {
    *index = device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 9, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
CUresult cuDevicePrimaryCtxGetState(CUdevice index, unsigned*, int* active) {
    *active = static_cast<int>(late_cuda::contexts.count(index));
    return CUDA_SUCCESS;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    if (std::strcmp(symbol, "cuDevicePrimaryCtxGetState")) std::abort();
    *function = reinterpret_cast<void*>(cuDevicePrimaryCtxGetState);
    *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void* kernel) {
    if (late_cuda::memory_left == 0) return cudaErrorMemoryAllocation;
    late_cuda::kernels.insert(kernel);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new LateStream;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    stream->run_until(stream->end());
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    return give(stream, [place = *event] { place.stream->run_until(place.position); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new LateEvent;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (late_cuda::captured && (stream == late_cuda::captured || stream == legacy_default)) std::abort();
    *event = {stream, stream->end()};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->stream) event->stream->run_until(event->position);
    return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
    *pool = new int(properties->location.id);
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void*) { return cudaSuccess; }
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
    if (late_cuda::memory_left == 0) return cudaErrorMemoryAllocation;
    *memory = std::malloc(bytes);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
    if (bytes > late_cuda::memory_left) return cudaErrorMemoryAllocation;
    *memory = std::malloc(bytes);
    std::memset(*memory, 0xAB, bytes);
    ++late_cuda::blocks;
    return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
    return give(stream, [memory] {
        std::free(memory);
        --late_cuda::blocks;
    });
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
    return give(stream, [=] { std::memset(memory, value, bytes); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return give(stream, [=] { std::memcpy(to, from, bytes); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, int) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    if (late_cuda::captured && stream == legacy_default) return cudaErrorStreamCaptureImplicit;
    const bool captured = stream && stream == late_cuda::captured;
    *status = captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = new LateGraph{{stream->waiting.begin(), stream->waiting.end()}};
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = new LateGraph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ++exec->playing;
    for (const Work& work : exec->works) give(stream, work);
    return give(stream, [exec] { --exec->playing; });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    if (exec->playing) late_cuda::destroyed_while_it_played = true;
    delete exec;
    return cudaSuccess;
}

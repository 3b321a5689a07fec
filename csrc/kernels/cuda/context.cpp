#include "kernels/cuda/context.h"

#include <cuda.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "kernels/cuda/driver.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int most_devices = 64;
// Freed memory that the pool keeps for the next allocation; what is above goes back whenever a stream is waited for.
constexpr std::uint64_t kept_bytes = std::uint64_t{256} << 20;

thread_local Context* current = nullptr;
thread_local cudaStream_t recording = nullptr;

int make_pool(cudaMemPool_t& pool, int device) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    RC_CUDA_TRY(cudaMemPoolCreate(&pool, &properties));
    std::uint64_t threshold = kept_bytes;
    RC_CUDA_TRY(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    return 0;
}

// Goes on where it stopped before for want of memory.
int prepare(Context& context, int device) {
    context.device = device;
    if (!context.stream) RC_CUDA_TRY(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking));
    if (!context.copies) RC_CUDA_TRY(cudaStreamCreateWithFlags(&context.copies, cudaStreamNonBlocking));
    if (!context.sent) RC_CUDA_TRY(cudaEventCreateWithFlags(&context.sent, cudaEventDisableTiming));
    if (!context.pool)
        if (const int status = make_pool(context.pool, device)) return status;
    if (!context.scratch) {
        void* memory = nullptr;
        RC_CUDA_TRY(cudaMallocFromPoolAsync(&memory, scratch_bytes + meeting_bytes, context.pool, context.stream));
        RC_CUDA_TRY(cudaMemsetAsync(static_cast<char*>(memory) + scratch_bytes, 0, meeting_bytes, context.stream));
        context.scratch = memory;
    }
    RC_CUDA_TRY(cudaDeviceGetAttribute(&context.processors, cudaDevAttrMultiProcessorCount, device));
    constexpr int driver_of_graphs = 12030;  // CUDA's graphs have such launches since 12.3
    int driver = 0;
    RC_CUDA_TRY(cudaDriverGetVersion(&driver));
    context.records_ahead = driver >= driver_of_graphs;
    return context.staging.prepare();
}

// Whether anything in this process works on the device.
bool has_context(int device) {
    using Ask = decltype(&cuDevicePrimaryCtxGetState);
    static const auto ask = reinterpret_cast<Ask>(find_in_driver("cuDevicePrimaryCtxGetState"));
    unsigned flags = 0;
    int active = 0;
    return !ask || ask(device, &flags, &active) != CUDA_SUCCESS || active;
}

}  // namespace

Context* context_of(int device) {
    static std::mutex mutex;
    static auto& contexts = *new std::array<std::unique_ptr<Context>, most_devices>;
    if (device < 0 || device >= most_devices) {
        refuse("there is no GPU of this number");
        return nullptr;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<Context>& context = contexts[static_cast<std::size_t>(device)];
    if (!context) context = std::make_unique<Context>();
    if (!context->is_ready) context->is_ready = prepare(*context, device) == 0;
    return context->is_ready ? context.get() : nullptr;
}

int make_current(int device, CudaPlace* before) {
    *before = {device, current};
    RC_CUDA_TRY(cudaGetDevice(&before->device));
    // Every time: another library may have changed the thread's device since.
    RC_CUDA_TRY(cudaSetDevice(device));
    if (current && current->device == device) return 0;
    Context* context = context_of(device);
    if (!context) return last_status();
    current = context;
    return 0;
}

// But for a device that nothing in this process works on, as GPU 0 of one that has all its arrays on GPU 1: since CUDA
// 12 it would be given a context for that, and memory be taken there. Then the thread's device is the last one that it
// worked on, as after PyTorch's own work.
void restore(const CudaPlace* before) {
    int now = -1;
    if (report(cudaGetDevice(&now), "cudaGetDevice") || (now != before->device && has_context(before->device)))
        report(cudaSetDevice(before->device), "cudaSetDevice");
    current = static_cast<Context*>(before->context);
}

Context* current_context() { return current; }
void set_recording_stream(cudaStream_t stream) { recording = stream; }
bool is_recording() { return recording != nullptr; }
Path current_path() { return used_or(current->path); }
std::int64_t processor_count() { return current->processors; }
bool launches_ahead() { return current->records_ahead && is_hopper(current_path()); }
Scratch::Scratch() : lock_(current->scratch_use), data_(current->scratch) {}
cudaStream_t current_stream() { return recording ? recording : current->stream; }

}  // namespace cuda
}  // namespace resnetcore

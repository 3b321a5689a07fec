#include "kernels/cuda/context.h"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

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

int prepare(Context& context, int device) {
    context.device = device;
    RC_CUDA_TRY(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking));
    RC_CUDA_TRY(cudaStreamCreateWithFlags(&context.copies, cudaStreamNonBlocking));
    RC_CUDA_TRY(cudaEventCreateWithFlags(&context.sent, cudaEventDisableTiming));
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    RC_CUDA_TRY(cudaMemPoolCreate(&context.pool, &properties));
    std::uint64_t threshold = kept_bytes;
    RC_CUDA_TRY(cudaMemPoolSetAttribute(context.pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    return context.staging.prepare();
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
    if (!context) {
        auto fresh = std::make_unique<Context>();
        if (prepare(*fresh, device)) return nullptr;
        context = std::move(fresh);
    }
    return context.get();
}

int make_current(int device, CudaPlace* before) {
    *before = {device, current};
    RC_CUDA_TRY(cudaGetDevice(&before->device));
    // Every time: another library may have changed the thread's device since.
    RC_CUDA_TRY(cudaSetDevice(device));
    if (current && current->device == device) return 0;
    Context* context = context_of(device);
    if (!context) return static_cast<int>(cudaErrorInvalidDevice);
    current = context;
    return 0;
}

void restore(const CudaPlace* before) {
    int now = -1;
    if (report(cudaGetDevice(&now), "cudaGetDevice") || now != before->device)
        report(cudaSetDevice(before->device), "cudaSetDevice");
    current = static_cast<Context*>(before->context);
}

Context* current_context() { return current; }
void set_recording_stream(cudaStream_t stream) { recording = stream; }
bool is_recording() { return recording != nullptr; }
Path current_path() { return current->path; }
cudaStream_t current_stream() { return recording ? recording : current->stream; }

}  // namespace cuda
}  // namespace resnetcore

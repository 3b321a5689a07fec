#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/status.h"

namespace resnetcore {
namespace cuda {

int Staging::prepare() {
    if (!memory_) {
        void* memory = nullptr;
        RC_CUDA_TRY(cudaHostAlloc(&memory, chunks * chunk_bytes, cudaHostAllocDefault));
        memory_ = static_cast<unsigned char*>(memory);
    }
    for (cudaEvent_t& event : emptied_)
        if (!event) RC_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return 0;
}

int Staging::next_chunk(cudaStream_t stream) {
    RC_CUDA_TRY(cudaEventRecord(emptied_[chunk_], stream));
    chunk_ = (chunk_ + 1) % chunks;
    used_ = 0;
    RC_CUDA_TRY(cudaEventSynchronize(emptied_[chunk_]));  // at once where it has not been recorded yet
    return 0;
}

int Staging::upload(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
    constexpr std::size_t alignment = 64;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t done = 0; done < bytes;) {
        if (used_ >= chunk_bytes)
            if (const int status = next_chunk(stream)) return status;
        const std::size_t part = std::min(bytes - done, chunk_bytes - used_);
        unsigned char* staged = memory_ + chunk_ * chunk_bytes + used_;
        std::memcpy(staged, static_cast<const unsigned char*>(from) + done, part);
        RC_CUDA_TRY(
            cudaMemcpyAsync(static_cast<unsigned char*>(to) + done, staged, part, cudaMemcpyHostToDevice, stream));
        used_ += (part + alignment - 1) / alignment * alignment;
        done += part;
    }
    return 0;
}

}  // namespace cuda
}  // namespace resnetcore

// Pinned memory that uploads go through, so that a caller may reuse its own at once and the device need not be idle.
//
// Invariant: a chunk is written again only when the copies out of it have been done. Small uploads share a chunk; large
// ones fill chunk after chunk, while the copy engine empties those before.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

namespace resnetcore {
namespace cuda {

class Staging {
public:
    int prepare();  // on the current device; 0, or a status, and then it cannot be used before another try
    int upload(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

private:
    static constexpr int chunks = 8;
    static constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

    int next_chunk(cudaStream_t stream);

    std::mutex mutex_;
    unsigned char* memory_ = nullptr;
    cudaEvent_t emptied_[chunks] = {};
    int chunk_ = 0;
    std::size_t used_ = 0;
};

}  // namespace cuda
}  // namespace resnetcore

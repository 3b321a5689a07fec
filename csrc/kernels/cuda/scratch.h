// What kernels of the calling thread's device may ask for while they are launched: how many multiprocessors there are,
// and memory for results that wait for the next kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

namespace resnetcore {
namespace cuda {

// A row of the widest layer in float64, and 8 MiB.
constexpr std::int64_t scratch_bytes = std::int64_t{40} << 20;
// Behind it: the word that a launch's blocks meet by.
constexpr std::int64_t meeting_bytes = 256;

std::int64_t processor_count();
// Whether kernels may be launched ahead of the end of those before them (launch.cuh): on Hopper's paths.
bool launches_ahead();

// While it lives, no other thread launches anything on the device that writes there: what one launch leaves, the next
// one finds. A recording that is played is held for it likewise, as it may use the memory, too.
class Scratch {
public:
    Scratch();
    void* data() const { return data_; }
    // Its lower 31 bits are 0 whenever nobody waits (hopper/meeting.cuh).
    std::uint32_t* meeting() const {
        return reinterpret_cast<std::uint32_t*>(static_cast<char*>(data_) + scratch_bytes);
    }

private:
    std::unique_lock<std::mutex> lock_;
    void* data_;
};

}  // namespace cuda
}  // namespace resnetcore

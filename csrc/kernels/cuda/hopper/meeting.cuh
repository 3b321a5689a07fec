// All blocks of a launch wait for each other.
//
// Invariant: a block that waits keeps its multiprocessor. So all of them must be there at a time, which
// `launch_together` sees to, and every block comes to every meeting.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace resnetcore {
namespace cuda {
namespace hopper {

// By one thread of each block, after the others of its block whose writes are to be seen have met it; those who meet it
// afterwards see what all blocks' threads had written. The word's lower 31 bits are 0 before and after: the first
// block's arrival and all others' make 2^31 together, which turns the bit above them round, whatever it was.
#if defined(RESNETCORE_CUDA_EMULATION)
inline void meet_blocks(std::uint32_t* word) { emulation::meet_blocks(word); }
#else
__device__ __forceinline__ void meet_blocks(std::uint32_t* word) {
    constexpr std::uint32_t turned = 0x80000000;
    const std::uint32_t arrival = blockIdx.x == 0 ? turned - (gridDim.x - 1) : 1;
    std::uint32_t before, now;
    asm volatile("atom.add.acq_rel.gpu.u32 %0, [%1], %2;" : "=r"(before) : "l"(word), "r"(arrival) : "memory");
    do {
        asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(word) : "memory");
    } while (((before ^ now) & turned) == 0);
}
#endif

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// All blocks of a launch wait for each other.
//
// Invariant: a block that waits keeps its multiprocessor. So all of them must be there at a time, which
// `launch_together` sees to, and every block comes to every meeting. The word's lower 31 bits are 0 before and after:
// the first block's arrival and all others' make 2^31 together, which turns the bit above them round, whatever it was.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "math/functions.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

RC_HD std::uint32_t arrival_at_meeting(std::uint32_t block, std::uint32_t blocks) {
    return block == 0 ? 0x80000000 - (blocks - 1) : 1;
}
// From what the word was when a block came.
RC_HD bool meeting_is_over(std::uint32_t before, std::uint32_t now) { return ((before ^ now) & 0x80000000) != 0; }

// By one thread of each block, after the others of its block whose writes are to be seen have met it; those who meet it
// afterwards see what all blocks' threads had written.
__device__ __forceinline__ void meet_blocks(std::uint32_t* word) {
    const std::uint32_t arrival = arrival_at_meeting(blockIdx.x, gridDim.x);
#if defined(RESNETCORE_CUDA_EMULATION)
    const std::uint32_t before = *word;
    *word += arrival;
    emulation::wait_for_blocks([=] { return meeting_is_over(before, *word); });
#else
    std::uint32_t before, now;
    asm volatile("atom.add.acq_rel.gpu.u32 %0, [%1], %2;" : "=r"(before) : "l"(word), "r"(arrival) : "memory");
    do {
        asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(word) : "memory");
    } while (!meeting_is_over(before, now));
#endif
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

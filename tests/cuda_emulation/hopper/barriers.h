// mbarriers (PTX ISA, "mbarrier"): a phase is complete when its arrivals have come and its bytes have been copied.
#pragma once

#include <cstdint>

#include "knowledge.h"

namespace emulation {
namespace hopper {

void begin_barriers();
void end_barriers();

// By the calling thread.
void barrier_init(std::uint32_t address, unsigned arrivals);
void fence_barrier_init();
void barrier_arrive(std::uint32_t address, std::uint32_t expected_bytes);
void barrier_wait(std::uint32_t address, unsigned parity);

// Of a copy: when the phase that the barrier is in will be complete; its bytes.
Moment completion(std::uint32_t address);
void complete_bytes(std::uint32_t address, std::uint32_t bytes);

}  // namespace hopper
}  // namespace emulation

// barrier.sync (PTX ISA, "barrier"): some warps of a block wait for each other.
#pragma once

#include <cstdint>

namespace emulation {
namespace hopper {

void begin_named_barriers();
void meet(std::uint32_t number, int threads);

}  // namespace hopper
}  // namespace emulation

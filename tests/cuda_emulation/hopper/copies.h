// cp.async.bulk.tensor: copies of boxes of a tensor in global memory, that arrive late, and of boxes to one.
//
// Invariant: a copy arrives when nothing else can happen, or at once, in turn from launch to launch; so what does not
// wait for it reads NaN, or is refused by shared_memory.h.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace emulation {
namespace hopper {

void begin_copies();
void end_copies();

// By the calling thread. Coordinates are in elements, the innermost first.
void copy_box(std::uint32_t to, const CUtensorMap* map, const std::int32_t* coordinates, int rank,
              std::uint32_t barrier);

// To the tensor, whose numbers are there once the block has ended, or at once. Groups are those of the calling thread,
// which must wait for them.
void store_box(const CUtensorMap* map, const std::int32_t* coordinates, int rank, std::uint32_t from);
void commit_boxes();
void wait_until_boxes_are_read();
// Lets one copy arrive that is on its way. False where there is none.
bool finish_a_copy();

}  // namespace hopper
}  // namespace emulation

// Where a plan's buffers lie: in the arena of the batch, or in one that each thread has for its tile.
#pragma once

#include <cstdint>
#include <vector>

#include "topology/plan.h"

namespace resnetcore {

// Gives every buffer its lifetime and its offset, and the plan its size. Buffers `read_afterwards` (−1: none) live
// until the end; buffer 0 takes room only where the plan stores it.
void lay_out(Plan& plan, const std::vector<BufferId>& read_afterwards, const PlanOptions& options);

// Leading dimension of a row buffer: whole cache lines, as rows are to be aligned, and never a multiple of 512 bytes,
// so that the rows of a tile do not fall into the same few cache sets.
std::int64_t padded_width(std::int64_t width, Storage storage);

}  // namespace resnetcore

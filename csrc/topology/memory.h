// Where a plan's buffers lie in its arena.
#pragma once

#include <cstdint>
#include <vector>

#include "topology/plan.h"

namespace resnetcore {

// Gives every buffer its lifetime and its offset, and the plan its size. Buffers `read_afterwards` (−1: none) live
// until the end; buffer 0 takes room only where the plan `stores_input`.
void lay_out(Plan& plan, const std::vector<BufferId>& read_afterwards, Storage storage, bool stores_input);

// Leading dimension of a row buffer: whole cache lines, as rows are to be aligned, and never a multiple of 512 bytes,
// so that the rows of a tile do not fall into the same few cache sets.
std::int64_t padded_width(std::int64_t width, Storage storage);

}  // namespace resnetcore

// What a block of the faster paths has beyond threads: its dynamic shared memory and who touched it, barriers in it,
// copies and products on their way. Blocks without dynamic shared memory have none of it.
//
// Invariant: whatever a rule of PTX forbids, or leaves undefined, ends the process with a message, in whichever order
// the threads happened to run. So that order proves nothing: what a thread may rely on is worked out from what it has
// waited for (knowledge.h).
#pragma once

#include <cstddef>

namespace emulation {

void begin_block(int threads, std::size_t shared_bytes);
void end_block();  // nothing may be on its way

// These threads have waited for each other.
void threads_met(int begin, int end);

}  // namespace emulation

// Pinned memory of a caller's, copies out of it and into it that nobody waits for, and marks to wait for instead.
//
// Invariant: `send` of more than a few bytes goes by a stream of its own, so that a batch arrives while the step before
// it runs; what is asked of the device's stream afterwards waits for it. The caller leaves pinned memory alone until a
// later mark was reached.
#pragma once

#include <cstddef>

namespace resnetcore {
namespace cuda {

void* allocate_pinned(std::size_t bytes);  // null on failure
void release_pinned(void* memory);
int send(void* to, const void* from, std::size_t bytes);
// Also reports an error of this thread's launches before it: another thread may be the one that waits.
int fetch(void* to, const void* from, std::size_t bytes);
void* make_mark();  // null on failure
int set_mark(void* mark);
int wait_for(void* mark);
void discard_mark(void* mark);

}  // namespace cuda
}  // namespace resnetcore

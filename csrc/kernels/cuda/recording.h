// A sequence of calls on the calling thread's stream, captured into a CUDA graph, to be played on its device's stream.
//
// Invariant: nothing of it happens while it is recorded, and calls that other threads make meanwhile are not in it.
#pragma once

namespace resnetcore {
namespace cuda {

int begin_recording();
void* end_recording();  // null on failure
int play(void* recording);
void discard(void* recording);

}  // namespace cuda
}  // namespace resnetcore

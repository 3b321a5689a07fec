// A GPU as this process uses it: one stream, one for copies beside it, a pool of memory, and pinned memory for uploads.
//
// Invariant: there is one stream of work for a device, whichever thread calls, so that what one thread asks for after
// another (under the library's locks) also happens after it. What several launches hand on between them through memory
// that threads share is held against others' launches meanwhile (scratch.h). It does not wait for CUDA's default
// stream, nor that for it. Contexts live as long as the process: at its end CUDA may be gone before static objects are.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>

#include "kernels/cuda/module.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/staging.h"

namespace resnetcore {
namespace cuda {

struct Context {
    int device = -1;
    cudaStream_t stream = nullptr;
    cudaStream_t copies = nullptr;  // beside it: copies that do not wait for the work before them
    cudaEvent_t sent = nullptr;     // the last of them
    cudaMemPool_t pool = nullptr;   // its own: what other libraries set up for theirs is left alone
    void* scratch = nullptr;        // of `scratch_bytes`, and a launch's meeting
    std::mutex scratch_use;
    int processors = 0;
    bool records_ahead = false;  // launches ahead, too (launch.cuh)
    Staging staging;
    Path path = Path::simple;
    bool is_ready = false;
};

// The context of a device, made when it is first asked for; null on failure, with `last_error`.
Context* context_of(int device);

// The calling thread's.
int make_current(int device, CudaPlace* before);
void restore(const CudaPlace* before);
Context* current_context();  // null before `make_current`

// A stream of the calling thread's own that takes its work from now on; null: the context's again.
void set_recording_stream(cudaStream_t stream);
bool is_recording();

}  // namespace cuda
}  // namespace resnetcore

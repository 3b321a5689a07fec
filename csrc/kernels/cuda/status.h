// What CUDA's calls return, as the border wants it: 0, or a number, and words for `last_error`.
#pragma once

#include <cuda_runtime_api.h>

namespace resnetcore {
namespace cuda {

// 0 for success. Otherwise `call` and CUDA's words are the calling thread's `last_error`, and CUDA forgets the error as
// far as it can.
int report(cudaError_t error, const char* call);
int refuse(const char* why);  // an error of the caller's
const char* last_error();
int last_status();  // that goes with it

// Returns from a function of the border where a call fails.
#define RC_CUDA_TRY(call) \
    if (const int status = ::resnetcore::cuda::report((call), #call)) return status

}  // namespace cuda
}  // namespace resnetcore

// What a test tells the stand-in, and asks of it.
#pragma once

#include <cstddef>
#include <set>

#include "cuda_runtime_api.h"

namespace late_cuda {

extern std::size_t memory_left;         // of all devices; an allocation of more fails
extern cudaError_t error_of_a_launch;   // what cudaGetLastError finds, once
extern std::set<const void*> kernels;   // that are loaded
extern bool destroyed_while_it_played;  // a graph
extern int blocks;                      // that are allocated

}  // namespace late_cuda

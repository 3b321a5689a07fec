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
extern std::set<int> contexts;          // devices that something works on
// A stream that another program captures; the default one may not be touched meanwhile.
extern cudaStream_t captured;

}  // namespace late_cuda

// Which kernels take the products of bfloat16 on a device: the simple ones, which run everywhere, or those made for its
// generation.
//
// Invariant: a path that has never passed its tests on a GPU is taken where it is named, and never by itself
// (benchmarks/results has what passed).
#pragma once

#include <cstddef>

namespace resnetcore {
namespace cuda {

// `ampere` is for compute capability 8.0 and later; `hopper_narrow` is Hopper's path, and takes chains of narrow layers
// in one launch; `hopper_fused` does, too, goes on through batch norms, and has ReLU's slopes in bits.
enum class Path { simple, ampere, hopper, hopper_narrow, hopper_fused };
inline bool is_hopper(Path path) { return path >= Path::hopper; }

// The path of that name, on a device of that compute capability (90), with memory of `scratch_bytes` there; null and ""
// name the default, the fastest that has passed there and that the driver can serve. False, and why in `words`, where
// there is none, or not there.
bool find_path(const char* name, int capability, const void* scratch, Path& path, char* words, std::size_t room);

// Of the calling thread's device.
Path current_path();

}  // namespace cuda
}  // namespace resnetcore

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
inline int number_of(Path path) { return static_cast<int>(path); }

// That which the calling thread uses, or its device's own.
Path current_path();
// The calling thread's from now on, by number; −1: its device's own. Of devices that have it.
inline thread_local int used_path = -1;
inline void use_path(int number) { used_path = number; }
inline Path used_or(Path own) { return used_path < 0 ? own : static_cast<Path>(used_path); }

}  // namespace cuda
}  // namespace resnetcore

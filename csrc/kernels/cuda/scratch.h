// What kernels of the calling thread's device may ask for while they are launched: how many multiprocessors there are,
// and memory for results that wait for the next kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace resnetcore {
namespace cuda {

// A row of the widest layer in float64, and 8 MiB.
constexpr std::int64_t scratch_bytes = std::int64_t{40} << 20;

std::int64_t processor_count();
// Whoever writes there has read it again before another kernel that uses it is launched: the device's one stream of
// work is the order.
void* scratch();

}  // namespace cuda
}  // namespace resnetcore

// Functions of CUDA's driver, looked up, so that nothing links to it.
#pragma once

namespace resnetcore {
namespace cuda {

// As CUDA 12.0 has it, whose <cuda.h> says what it takes; null where the driver does not.
void* find_in_driver(const char* function);

}  // namespace cuda
}  // namespace resnetcore

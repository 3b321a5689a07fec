// setmaxnreg (PTX ISA): a block's registers, which its warps give back and take.
#pragma once

namespace emulation {
namespace hopper {

void begin_registers(int threads);
// By all threads of a warp: until there are as many.
void set_registers(int count, bool more);

}  // namespace hopper
}  // namespace emulation

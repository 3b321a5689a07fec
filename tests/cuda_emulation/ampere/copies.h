// cp.async and ldmatrix. A copy arrives when its thread waits for it, and no sooner: who reads what it has not waited
// for, or has copied over what others may still be reading, ends the process (shared_memory.h).
#pragma once

#include <cstdint>

namespace emulation {
namespace ampere {

void begin_block(int threads);
void end_block();  // nothing may be on its way

void copy_place(std::uint32_t to, const void* from, int bytes);
void commit_copies();
void wait_for_copies(int but_the_last);

void load_matrices(std::uint32_t row, std::uint32_t (&x)[4], bool transposed);

}  // namespace ampere
}  // namespace emulation

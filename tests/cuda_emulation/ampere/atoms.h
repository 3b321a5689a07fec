// The functions of csrc/kernels/cuda/ampere/atoms.cuh, by the emulation.
#pragma once

#include <cstdint>

#include "ampere/copies.h"
#include "shared_access.h"

namespace resnetcore {
namespace cuda {
namespace ampere {

inline void copy_place(Shared to, const void* from, int bytes) { emulation::ampere::copy_place(to, from, bytes); }
inline void commit_copies() { emulation::ampere::commit_copies(); }
template <int but_the_last>
void wait_for_copies() {
    emulation::ampere::wait_for_copies(but_the_last);
}
inline void load_matrices(Shared row, std::uint32_t (&x)[4]) { emulation::ampere::load_matrices(row, x, false); }
inline void load_transposed(Shared row, std::uint32_t (&x)[4]) { emulation::ampere::load_matrices(row, x, true); }

}  // namespace ampere
}  // namespace cuda
}  // namespace resnetcore

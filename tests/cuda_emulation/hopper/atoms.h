// The functions of csrc/kernels/cuda/hopper/atoms.cuh, by the emulation.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "barriers.h"
#include "block.h"
#include "copies.h"
#include "math/bfloat16.h"
#include "named_barriers.h"
#include "products.h"
#include "registers.h"
#include "shared_access.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

namespace emulated = emulation::hopper;

inline std::uint32_t larger_of_each(std::uint32_t x, std::uint32_t y) {
    const std::uint32_t lower = 0xffff;
    return std::max(x & lower, y & lower) | std::max(x & ~lower, y & ~lower);
}
inline void fence_stores() { emulation::fence_stores(); }
inline void fence_loads() { emulation::fence_stores(); }

inline void meet_group(std::uint32_t number) { emulated::meet(number, 128); }
inline void meet_groups(int number, int groups) { emulated::meet(static_cast<std::uint32_t>(number), 128 * groups); }

inline bool elect_one() {
    emulation::wait_for_warp("elect.sync", "", 0, nullptr);
    return emulation::lane() == 0;
}
template <int count>
void give_registers() {
    emulated::set_registers(count, false);
}
template <int count>
void take_registers() {
    emulated::set_registers(count, true);
}

inline void barrier_init(Shared barrier, std::uint32_t arrivals) { emulated::barrier_init(barrier, arrivals); }
inline void fence_barrier_init() {
    emulated::fence_barrier_init();
    fence_stores();
}
inline void arrive(Shared barrier) { emulated::barrier_arrive(barrier, 0); }
inline void arrive_expecting(Shared barrier, std::uint32_t bytes) { emulated::barrier_arrive(barrier, bytes); }
inline void wait(Shared barrier, std::uint32_t parity) { emulated::barrier_wait(barrier, parity); }

inline void copy_box(Shared to, const CUtensorMap& map, std::int32_t x, std::int32_t y, Shared barrier) {
    const std::int32_t at[] = {x, y};
    emulated::copy_box(to, &map, at, 2, barrier);
}
inline void copy_box(Shared to, const CUtensorMap& map, std::int32_t x, std::int32_t y, std::int32_t z,
                     Shared barrier) {
    const std::int32_t at[] = {x, y, z};
    emulated::copy_box(to, &map, at, 3, barrier);
}

inline void store_box(const CUtensorMap& map, std::int32_t x, std::int32_t y, Shared from) {
    const std::int32_t at[] = {x, y};
    emulated::store_box(&map, at, 2, from);
}
inline void commit_boxes() { emulated::commit_boxes(); }
inline void wait_until_boxes_are_read() { emulated::wait_until_boxes_are_read(); }

inline void product_fence() { emulated::product_fence(); }
inline void commit_products() { emulated::commit_products(); }
template <int but_the_last>
void wait_for_products() {
    emulated::wait_for_products(but_the_last);
}
template <int count>
void keep_in_place(float (&)[count]) {}
inline std::uint32_t only_here(std::uint32_t x) { return x; }
template <bool a_along_rows, bool b_along_columns, int count>
void multiply(float (&d)[count], std::uint64_t a, std::uint64_t b, bool add) {
    static_assert(count == 128 || count == 64 || count == 32, "as many as there are instructions of");
    emulated::multiply(d, 2 * count, a, b, a_along_rows, b_along_columns, add);
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

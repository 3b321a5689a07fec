// wgmma (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate"): products of 64 × N × 16 in bfloat16 by
// the 128 threads of a warpgroup, from shared memory, summed in float in their registers.
//
// Invariant: until a product has been waited for, its sums are NaN, and nobody may have written to them.
#pragma once

#include <cstdint>

namespace emulation {
namespace hopper {

void begin_products(int threads);
void end_products();

// By all threads of a warpgroup.
void product_fence();
void multiply(float* sums, int columns, std::uint64_t a, std::uint64_t b, bool a_along_rows, bool b_along_columns,
              bool add);
void commit_products();
void wait_for_products(int but_the_last);

// Whether the calling thread knows that a product is complete.
bool product_is_known(int product);

}  // namespace hopper
}  // namespace emulation

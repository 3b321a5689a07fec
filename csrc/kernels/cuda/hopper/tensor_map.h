// Tensor maps: what copies of boxes know of a tensor of bfloat16 in global memory. Boxes are swizzled in 128 bytes.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/functions.h"
#include "kernels/ops.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// Sources, and skips, of one sum at most: the sources' maps are parameters of a kernel.
constexpr int many_terms = 64;

// Of a row-major matrix, in boxes of 64 columns. False where the driver does not take it: rows must begin on boundaries
// of 16 bytes, and not overlap.
bool encode(CUtensorMap& map, Rows<bfloat16> matrix, std::int64_t rows, std::int64_t columns, int box_rows);

// Of a packed operand, in boxes of some panels, one after another, each 64 columns wide.
bool encode_panels(CUtensorMap& map, const bfloat16* operand, std::int64_t inner, std::int64_t columns, int box_rows,
                   int box_panels);

// Whether the driver makes the maps that every product of Hopper's path asks of it: refused later, products would go
// the simple way without a word. They are tried on so many bytes of the device's memory, on a boundary of 16, which
// nothing touches.
constexpr int tried_rows = 64;
constexpr std::int64_t tried_bytes = std::int64_t{tried_rows} * panel_width * sizeof(bfloat16);
bool makes_maps(const void* memory);

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

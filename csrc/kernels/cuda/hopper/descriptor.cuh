// Where a product finds an operand in shared memory: 64-bit descriptors of layouts with a swizzle of 128 bytes, as bulk
// copies write them (PTX ISA, "Matrix Descriptor Format" and "Canonical Layouts").
//
// Invariant: an operand's tile is made of boxes that are 64 numbers, 128 bytes, wide; a box begins on a boundary of
// 1024 bytes, where its pattern does, and its rows follow each other. So eight rows are 1024 bytes, everywhere.
#pragma once

#include "kernels/cuda/hopper/atoms.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr int box_width = 64;           // numbers
constexpr std::uint32_t box_row = 128;  // bytes
constexpr std::uint32_t atom_bytes = 8 * box_row;
constexpr int product_depth = 16;  // terms of a sum, in one product

__device__ __forceinline__ std::uint64_t descriptor(Shared start, std::uint32_t leading, std::uint32_t stride) {
    constexpr std::uint64_t swizzle_128_bytes = std::uint64_t{1} << 62;
    return swizzle_128_bytes | std::uint64_t{stride >> 4} << 32 | std::uint64_t{leading >> 4} << 16 |
           (start & 0x3ffff) >> 4;
}

// A descriptor of what is so many bytes on. Addresses are in its lower half, and leave no carry.
__device__ __forceinline__ std::uint64_t moved(std::uint64_t descriptor, std::uint32_t bytes) {
    return descriptor >> 32 << 32 | (static_cast<std::uint32_t>(descriptor) + (bytes >> 4));
}

// Rows of the box are rows of the operand, and go along the sum's terms: 16 of them are 32 bytes of each row.
__device__ __forceinline__ std::uint64_t along_terms(Shared box, int product) {
    const std::uint32_t unused = 16;
    return moved(descriptor(box, unused, atom_bytes), static_cast<std::uint32_t>(product) * product_depth * 2);
}

// Rows of the box are terms of the sum: 16 of them are two atoms. Of the operand, the next 64 rows or columns are in
// the next box, `next_box` bytes on.
__device__ __forceinline__ std::uint64_t across_terms(Shared box, int product, std::uint32_t next_box) {
    return moved(descriptor(box, next_box, atom_bytes), static_cast<std::uint32_t>(product) * product_depth * box_row);
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// Which numbers ReLU let pass, a bit each, as the matrix units' threads have their sums: where forward leaves what it
// has multiplied, and back reads it, in both of 64 rows by 64 columns a word of each of a warpgroup's threads.
//
// Invariant: whatever kernel keeps them, the word of a thread has bit k of the first of its k-th pair of sums and bit
// 16 + k of the second (atoms.cuh, `multiply`: pair 2 · eighth + half), and of what is not there anything.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/path.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

inline bool keeps_passes() { return current_path() == Path::hopper_fused; }
inline std::int64_t pass_words(std::int64_t rows, std::int64_t columns) {
    if (!keeps_passes()) return 0;
    return (rows + group_rows - 1) / group_rows * ((columns + box_width - 1) / box_width) * group_threads;
}

// The first word of a warpgroup's 64 rows from `row` on and 64 columns from `column` on, of a step that has so many.
// Such boxes are counted by 32 bits: 2^44 numbers have room nowhere, and a chain has no register to spare.
__device__ __forceinline__ std::int64_t pass_place(std::int64_t row, std::int64_t column, std::int64_t columns) {
    const auto panels = (static_cast<std::uint32_t>(columns) + box_width - 1) / box_width;
    return std::int64_t{static_cast<std::uint32_t>(row) / group_rows * panels +
                        static_cast<std::uint32_t>(column) / box_width} *
           group_threads;
}

// A thread's word, made of its pairs in their order: of the magnitudes of two numbers as bfloat16, which pass where
// they are not zero.
class PassBits {
public:
    __device__ __forceinline__ void add(std::uint32_t magnitudes) {
        constexpr std::uint32_t carries = 0x7fff7fff, carried = 0x80008000;
        bits_ = bits_ >> 1 | ((magnitudes + carries) & carried);
    }
    __device__ __forceinline__ std::uint32_t word() const { return bits_; }

private:
    std::uint32_t bits_ = 0;
};
// ReLU's slope where the thread has its k-th pair of sums.
__device__ __forceinline__ Stretch<float, 2> slopes_of(std::uint32_t word, int k) {
    return {{word >> k & 1 ? 1.0f : 0.0f, word >> (16 + k) & 1 ? 1.0f : 0.0f}};
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

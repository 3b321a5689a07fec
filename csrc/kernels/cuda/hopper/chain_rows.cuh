// A warp's 16 rows of a box, between shared and global memory, by accesses of 16 bytes along the rows: all loads of a
// box before the first of its numbers is needed.
//
// Invariant: a thread has eighth `lane % 8` of rows `lane / 8`, and every fourth from there on: a warp's access is four
// whole rows of a box. What is not there, behind the last column or row, is read as zeros and not written.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/hopper/words.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

// Of a box, what a thread moves.
constexpr int words_of_thread = 4;
using BoxWords = Words[words_of_thread];

// Of 16 bytes in a box: column 8 · eighth of a row, as a copy would have swizzled it.
__device__ __forceinline__ Shared place_of(Shared box, int row, int eighth) {
    return box + static_cast<std::uint32_t>(row) * box_row + static_cast<std::uint32_t>((eighth ^ row) & 7) * 16;
}

// A thread of a warpgroup.
struct GroupThread {
    std::uint32_t number = only_here(threadIdx.x % group_threads);
    __device__ __forceinline__ int first_row() const {
        return static_cast<int>(number / 32) * (group_rows / warps_of_group);
    }
};

// A box's columns of the rows of a matrix from `first_row` on, the warpgroup's first; there are `rows` of them.
class BoxRows {
public:
    __device__ __forceinline__ BoxRows(int first_row, int rows, int first_column, int columns)
        : first_row_(first_row), rows_(rows), first_column_(first_column), columns_(columns) {}

    __device__ __forceinline__ void read(const Rows<bfloat16>& from, BoxWords& words) const {
        const bfloat16* const at = from.data + offset(from.stride);
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i) words[i] = {};
        if (is_whole()) {
#pragma unroll
            for (int i = 0; i < words_of_thread; ++i)
                if (row(i) < rows_) words[i] = *reinterpret_cast<const Words*>(at + 4 * i * from.stride);
        } else {
#pragma unroll
            for (int i = 0; i < words_of_thread; ++i)
                if (row(i) < rows_)
#pragma unroll
                    for (int c = 0; c < 8; ++c)
                        if (column() + c < columns_)
                            words[i].at[c / 2] |= static_cast<std::uint32_t>(at[4 * i * from.stride + c].bits)
                                                  << c % 2 * 16;
        }
    }
    __device__ __forceinline__ void write(const BoxWords& words, const MutableRows<bfloat16>& to) const {
        bfloat16* const at = to.data + offset(to.stride);
        if (is_whole()) {
#pragma unroll
            for (int i = 0; i < words_of_thread; ++i)
                if (row(i) < rows_) write_words(at + 4 * i * to.stride, words[i].at);
        } else {
#pragma unroll
            for (int i = 0; i < words_of_thread; ++i)
                if (row(i) < rows_)
#pragma unroll
                    for (int c = 0; c < 8; ++c)
                        if (column() + c < columns_)
                            at[4 * i * to.stride + c] =
                                c % 2 == 0 ? lower(words[i].at[c / 2]) : upper(words[i].at[c / 2]);
        }
    }
    __device__ __forceinline__ void load(Shared box, BoxWords& words) const {
        const Shared first = place_of(box, row(0), eighth());
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i) load_words(place(first, i), words[i].at);
    }
    __device__ __forceinline__ void store(Shared box, const BoxWords& words) const {
        const Shared first = place_of(box, row(0), eighth());
#pragma unroll
        for (int i = 0; i < words_of_thread; ++i) store_words(place(first, i), words[i].at);
    }

private:
    __device__ __forceinline__ int eighth() const { return static_cast<int>(thread_.number % 8); }
    __device__ __forceinline__ int row(int i) const {
        return thread_.first_row() + static_cast<int>(thread_.number % 32 / 8) + 4 * i;
    }
    // Of row(i), from that of row(0): four rows on, the swizzle's pattern has that bit the other way round.
    static __device__ __forceinline__ Shared place(Shared first, int i) {
        return (first ^ (i % 2 != 0 ? 4 * 16 : 0)) + static_cast<std::uint32_t>(i) * 4 * box_row;
    }
    __device__ __forceinline__ int column() const { return first_column_ + 8 * eighth(); }
    __device__ __forceinline__ bool is_whole() const { return first_column_ + box_width <= columns_; }
    __device__ __forceinline__ std::int64_t offset(std::int64_t stride) const {
        return static_cast<std::int64_t>(first_row_ + row(0)) * stride + column();
    }

    GroupThread thread_;
    int first_row_, rows_, first_column_, columns_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

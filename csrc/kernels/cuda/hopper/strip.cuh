// What a thread finishes of a tile: eight columns of every second of its warp's 16 rows. What it needs of global memory
// is asked for ahead, of several rows before the first is used, and kept in registers until then: a warpgroup that
// waited for memory row by row would take longer than the products of a thousand terms.
#pragma once

#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/hopper/words.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

template <class Activation>
RC_HD bool is_activation(int index) {
    return index == index_of<Activation>(Activations{});
}

class Strip {
public:
    static constexpr int width = 8, across = tile_columns / width, apart = 32 / across;
    static constexpr int count = group_rows / warps_of_group / apart;

    __device__ __forceinline__ Strip(std::int64_t first_row, std::int64_t first_column, std::int64_t rows,
                                     std::int64_t columns)
        : row_in_tile_(first_row_of_warp() + lane() / across),
          column_in_tile_(lane() % across * width),
          i_(static_cast<std::int32_t>(first_row) + row_in_tile_),
          j_(static_cast<std::int32_t>(first_column) + column_in_tile_),
          exist_(j_ <= columns - width ? (static_cast<std::int32_t>(rows) - i_ + apart - 1) / apart : 0) {}

    // Of all eight columns. A row may be there where they are not.
    __device__ __forceinline__ bool has(int v) const { return v < exist_; }
    __device__ __forceinline__ std::int64_t row(int v) const { return std::int64_t{i_} + v * apart; }
    __device__ __forceinline__ bool has_any() const { return has(0); }
    __device__ __forceinline__ std::int64_t column() const { return j_; }

    // Where there are none, `otherwise`.
    __device__ __forceinline__ void read(const Rows<bfloat16>& from, std::uint32_t otherwise,
                                         Words (&words)[count]) const {
        const bfloat16* at = from.data + row(0) * from.stride + j_;
        // Which are there is found out again, and not kept from one array to the next.
        const int there = static_cast<int>(only_here(static_cast<std::uint32_t>(exist_)));
#pragma unroll
        for (int v = 0; v < count; ++v, at += apart * from.stride) {
            words[v] = {{otherwise, otherwise, otherwise, otherwise}};
            if (from.data && v < there) words[v] = *reinterpret_cast<const Words*>(at);
        }
    }
    // Of the thread's columns, in every row.
    __device__ __forceinline__ Stretch<float, width> read_columns(const float* from) const {
        if (from && has_any()) return cuda::read<width>(from + j_);
        Stretch<float, width> nothing;
#pragma unroll
        for (int c = 0; c < width; ++c) nothing.at[c] = -0.0f;
        return nothing;
    }
    __device__ __forceinline__ Shared place(Shared left, int v) const {
        return place_of_sum(left, row_in_tile_ + v * apart, column_in_tile_);
    }
    __device__ __forceinline__ Stretch<float, width> sums(Shared left, int v) const {
        Stretch<float, width> x;
        load_stretch(place(left, v), x);
        return x;
    }
    __device__ __forceinline__ bfloat16* place(const MutableRows<bfloat16>& to) const {
        return to.data + row(0) * to.stride + j_;
    }

private:
    const int row_in_tile_, column_in_tile_;
    const std::int32_t i_, j_;  // of the first row; there are fewer than 2³¹
    const int exist_;           // rows that are there, the thread's and those behind them
};

// A strip's visit of one row, where nothing is kept of the others: which of the tile's sums, and where they lie.
struct RowVisit {
    int row, column;  // of the tile
    Shared place;
    // What is worked out of the thread's number is worked out here, and not held while products are waited for.
    __device__ __forceinline__ RowVisit(int visit, Shared left) {
        const int thread = static_cast<int>(only_here(threadIdx.x)), at = thread % 32 + 32 * visit;
        row = first_row_of_warp(thread) + at / Strip::across;
        column = at % Strip::across * Strip::width;
        place = place_of_sum(left, row, column);
    }
};

// Of a stretch's row, what was read ahead.
struct KeptWords {
    const Words& words;
    template <int n>
    __device__ __forceinline__ Stretch<float, n> get(const Rows<bfloat16>&, std::int64_t, std::int64_t) const {
        return numbers_of(words);
    }
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

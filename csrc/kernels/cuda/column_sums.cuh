// Sums along the rows, for 64 columns a block: lanes of threads add neighbouring stretches of rows, whose sums are then
// added in order.
#pragma once

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {

constexpr int column_block = 64, column_lanes = 4;

template <class C>
using ColumnMemory = C[column_lanes][column_block];

__device__ __forceinline__ int column_of_thread() { return static_cast<int>(threadIdx.x) % column_block; }
__device__ __forceinline__ bool leads_column() { return threadIdx.x < column_block; }

// Σ term(sum, row) for this thread's column, the same in each of its lanes. Called by the whole block.
template <class C, class Term>
__device__ __forceinline__ C fold_rows(std::int64_t rows, C (&memory)[column_lanes][column_block], Term term) {
    const int lane = static_cast<int>(threadIdx.x) / column_block, column = column_of_thread();
    const std::int64_t share = (rows + column_lanes - 1) / column_lanes, begin = lane * share;
    C sum = 0;
    const std::int64_t end = begin + share < rows ? begin + share : rows;
#pragma unroll 8
    for (std::int64_t i = begin; i < end; ++i) sum = term(sum, i);
    memory[lane][column] = sum;
    __syncthreads();
    C total = 0;
    for (int i = 0; i < column_lanes; ++i) total = total + memory[i][column];
    __syncthreads();
    return total;
}
template <class C, class Value>
__device__ __forceinline__ C sum_rows(std::int64_t rows, C (&memory)[column_lanes][column_block], Value value) {
    return fold_rows(rows, memory, [&](C sum, std::int64_t i) { return sum + value(i); });
}

}  // namespace cuda
}  // namespace resnetcore

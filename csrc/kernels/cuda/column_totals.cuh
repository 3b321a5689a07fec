// Sums along all rows for a few columns a block: for batches whose columns are few rows long, so that nothing is left
// for another launch to put together.
//
// Invariant: the order of adding is fixed by the number of rows alone: a thread adds every 512th row, lanes and warps
// add pairs that lie the same way apart.
#pragma once

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {

constexpr int total_threads = 512;

struct ColumnTotals {
    static constexpr int warps = total_threads / 32, most = 2 * stretch_columns;
    static_assert(most <= warps && warps == 16, "a warp for each total, half of its lanes for the warps' sums");
    double of_warps[warps][most + 1];  // in other banks each
    double at[most];
};

// The sums over the warp's lanes of n numbers: that of number (lane / (32 / n)) in x[0]. Half of the numbers go to the
// other half of the lanes each time, so that no sum is made twice.
template <int left, int apart, int n>
__device__ __forceinline__ void add_lanes(double (&x)[n]) {
    if constexpr (apart > 0 && left > 1) {
        constexpr int half = left / 2;
        const bool upper = threadIdx.x & apart;
#pragma unroll
        for (int k = 0; k < half; ++k) {
            const double given = upper ? x[k] : x[k + half], kept = upper ? x[k + half] : x[k];
            x[k] = kept + __shfl_xor_sync(0xffffffffu, given, apart);
        }
        add_lanes<half, apart / 2>(x);
    } else if constexpr (apart > 0) {
        x[0] = x[0] + __shfl_xor_sync(0xffffffffu, x[0], apart);
        add_lanes<1, apart / 2>(x);
    }
}

// Σ value(row), a Stretch, into `totals.at`, which the whole block may read when it returns. So many rows of a thread
// are read before the first is added. Called by the whole block.
template <int together, class Value>
__device__ __forceinline__ void sum_columns(std::int64_t rows, ColumnTotals& totals, Value value) {
    using Numbers = decltype(value(std::int64_t{0}));
    constexpr int n = sizeof(Numbers::at) / sizeof(Numbers::at[0]), lanes_of_number = 32 / n;
    Numbers sum = {};
#pragma unroll 1
    for (std::int64_t first = threadIdx.x; first < rows; first += together * total_threads) {
        Numbers terms[together];
#pragma unroll
        for (int s = 0; s < together; ++s)
            terms[s] = first + s * total_threads < rows ? value(first + s * total_threads) : Numbers{};
#pragma unroll
        for (int s = 0; s < together; ++s) each(sum, Plus(), terms[s]);
    }
    double x[n];
#pragma unroll
    for (int k = 0; k < n; ++k) x[k] = static_cast<double>(sum.at[k]);
    add_lanes<n, 16>(x);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    if (lane % lanes_of_number == 0) totals.of_warps[warp][lane / lanes_of_number] = x[0];
    __syncthreads();
    if (warp < n) {
        double one[] = {totals.of_warps[lane % ColumnTotals::warps][warp]};
        add_lanes<1, ColumnTotals::warps / 2>(one);
        if (lane == 0) totals.at[warp] = one[0];
    }
    __syncthreads();
}

// visit(Columns<n>(), j) for this block's columns from j on: 8 where `whole`, as `visit_stretches` has it, one without.
template <class Visit>
__device__ __forceinline__ void visit_columns(std::int64_t columns, bool whole, Visit visit) {
    const std::int64_t width = whole ? stretch_columns : 1, first = blockIdx.x * width;
    const std::int64_t end = first + width < columns ? first + width : columns;
    if (end - first == stretch_columns) {
        visit(Columns<stretch_columns>(), first);
    } else {
#pragma unroll 1
        for (std::int64_t j = first; j < end; ++j) visit(Columns<1>(), j);
    }
}
inline dim3 column_grid(std::int64_t columns, bool whole) {
    return dim3(static_cast<unsigned>(stretch_count(1, columns, whole)));
}

}  // namespace cuda
}  // namespace resnetcore

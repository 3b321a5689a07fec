// Batch normalisation's coefficients from all rows of a batch, and at once what is made by them.
#pragma once

#include "kernels/columns.h"
#include "kernels/cuda/column_totals.cuh"

namespace resnetcore {
namespace cuda {

// `in` has the batch's rows, as many as `combine.sums` says. finish(Columns<n>(), j) follows when the coefficients of
// the block's columns are there. `whole`: what it touches lies on boundaries, and so do the rows.
//
// Two passes: squares are of deviations, so a large mean costs no digits.
template <class T, class Finish>
__global__ void __launch_bounds__(total_threads, 1)
    apply_norm_kernel(Rows<T> in, const __grid_constant__ CombineMomentsArgs<T> combine,
                      const __grid_constant__ Finish finish, bool whole) {
    using C = Compute<T>;
    constexpr int together = 16 / sizeof(C);
    __shared__ ColumnTotals totals;
    __shared__ C centers[stretch_columns];
    const std::int64_t rows = combine.sums.rows;
    const int own = static_cast<int>(threadIdx.x);
    visit_columns(combine.end, whole, [&](auto n, std::int64_t j) {
        sum_columns<together>(rows, totals, [&](std::int64_t i) { return read<n>(in, i, j); });
        if (own < n) centers[own] = static_cast<C>(totals.at[own] / static_cast<double>(rows));
        __syncthreads();
        Stretch<C, n> center;
#pragma unroll
        for (int c = 0; c < n; ++c) center.at[c] = centers[c];
        sum_columns<together>(rows, totals, [&](std::int64_t i) {
            Stretch<C, n> x = read<n>(in, i, j);
            each(x, [](C one, C mean) { return (one - mean) * (one - mean); }, center);
            return x;
        });
        if (own < n) finish_moments(combine, j + own, {static_cast<double>(centers[own]), totals.at[own]});
        __syncthreads();
        finish(n, j);
    });
}

}  // namespace cuda
}  // namespace resnetcore

// Batch normalisation's coefficients from all rows of a batch, and at once what is made by them.
#pragma once

#include "kernels/columns.h"
#include "kernels/cuda/column_totals.cuh"

namespace resnetcore {
namespace cuda {

// What a norm does to n columns.
template <class C, int n>
struct Normaliser {
    Stretch<C, n> center, scale, shift;
    __device__ __forceinline__ Normaliser(const C* center, const C* scale, const C* shift)
        : center(read<n>(center)), scale(read<n>(scale)), shift(read<n>(shift)) {}
    __device__ __forceinline__ void operator()(Stretch<C, n>& z) const {
        each(
            z, [](C x, C center, C scale, C shift) { return normalise(x, center, scale, shift); }, center, scale,
            shift);
    }
};

// A block's columns' coefficients, in shared memory.
template <class T>
struct BlockCoefficients {
    using C = Compute<T>;
    Stretch<C, stretch_columns> mean, inverse_deviation, scale, shift;
    __device__ __forceinline__ NormCoefficients<T> view() {
        return {mean.at, inverse_deviation.at, scale.at, shift.at};
    }
    __device__ __forceinline__ void write_column(int own, const NormCoefficients<T>& out, std::int64_t j) const {
        out.mean[j] = mean.at[own];
        out.inverse_deviation[j] = inverse_deviation.at[own];
        out.scale[j] = scale.at[own];
        out.shift[j] = shift.at[own];
    }
};

// `in` has the batch's rows, as many as `combine.sums` says. finish(z, ahead, normaliser, j) follows when the
// coefficients of the block's columns are there: z are the thread's first rows, and `ahead` is what
// finish.ahead(Columns<n>(), rows, j) has asked for long before. `whole`: what it touches lies on boundaries, and so do
// the rows.
//
// Two passes: squares are of deviations, so a large mean costs no digits.
template <class T, class Finish>
__global__ void __launch_bounds__(total_threads, 1)
    apply_norm_kernel(Rows<T> in, const __grid_constant__ CombineMomentsArgs<T> combine,
                      const __grid_constant__ Finish finish, bool whole) {
    begin_ahead();
    using C = Compute<T>;
    constexpr int together = rows_together<C>;
    __shared__ ColumnTotals totals;
    __shared__ BlockCoefficients<T> shared;
    const int rows = static_cast<int>(combine.sums.rows), own = static_cast<int>(threadIdx.x);
    visit_columns(combine.end, whole, [&](auto n, std::int64_t j) {
        using Kept = KeptRows<T, n>;
        const auto read_rows = [&](int first) { return Kept(in, rows, first, j); };
        const Kept kept = read_rows(own);
        const auto sum = sum_own_rows<together>(rows, kept, read_rows,
                                                [](const Kept& some, int s, int) { return some[s].numbers(); });
        // Not before: the memory that this asks for would come before what is waited for.
        const auto ahead = finish.ahead(n, rows, j);
        NormColumn<T> before;  // of the column that this thread finishes
        add_threads(sum, totals, [&](double total) {
            before = norm_column(combine, j + own);
            shared.mean.at[own] = static_cast<C>(total / static_cast<double>(rows));
        });
        const Stretch<C, n> center = read<n>(shared.mean.at);
        const auto squares = sum_own_rows<together>(rows, kept, read_rows, [&](const Kept& some, int s, int) {
            Stretch<C, n> x = some[s].numbers();
            each(x, [](C one, C mean) { return (one - mean) * (one - mean); }, center);
            return x;
        });
        ColumnMoments moments;
        add_threads(squares, totals, [&](double total) {
            moments.mean = static_cast<double>(shared.mean.at[own]), moments.squares = total;
            set_batch_coefficients(combine, before, moments, shared.view(), own);
        });
        if (own < n) {
            shared.write_column(own, combine.out, j + own);
            carry_statistics(combine, before, moments, j + own);
        }
        finish(kept, ahead, Normaliser<C, n>(shared.mean.at, shared.scale.at, shared.shift.at), j);
    });
}

}  // namespace cuda
}  // namespace resnetcore

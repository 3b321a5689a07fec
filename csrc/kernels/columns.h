// What the small operations of ops.h do to one column or one batch, the same on every device: a kernel is a loop over
// these.
#pragma once

#include "kernels/ops.h"
#include "math/normalisation.h"
#include "math/step.h"

namespace resnetcore {

template <class T>
RC_HD void set_coefficients(const NormCoefficients<T>& out, std::int64_t j, double mean, double variance,
                            const Compute<T>* weight, const Compute<T>* bias) {
    const double inverse = inverse_deviation(variance);
    out.mean[j] = static_cast<Compute<T>>(mean);
    out.inverse_deviation[j] = static_cast<Compute<T>>(inverse);
    out.scale[j] = static_cast<Compute<T>>(static_cast<double>(weight[j]) * inverse);
    out.shift[j] = bias[j];
}

// Biased variance in the batch, unbiased in the running statistics (Ioffe & Szegedy 2015, algorithm 2).
template <class T>
RC_HD void combine_moments_of_column(const CombineMomentsArgs<T>& args, std::int64_t j) {
    const double n = static_cast<double>(args.sums.rows);
    const ColumnMoments all = combine_chunks(args.sums, j);
    set_coefficients(args.out, j, all.mean, all.squares / n, args.weight, args.bias);
    args.next_mean[j] = carry_on(args.next_mean[j], all.mean);
    args.next_var[j] = carry_on(args.next_var[j], all.squares / (n - 1));
}

template <class T>
RC_HD void combine_norm_sums_of_column(const CombineNormSumsArgs<T>& args, std::int64_t j) {
    const double n = static_cast<double>(args.sums.rows);
    double sum = 0, sum_xhat = 0;
    for (std::int64_t c = 0; c < args.sums.chunks(); ++c) {
        sum += static_cast<double>(args.sums.first(c)[j]);
        sum_xhat += static_cast<double>(args.sums.second(c)[j]);
    }
    args.mean_d[j] = static_cast<Compute<T>>(args.frozen ? 0 : sum / n);
    args.mean_dx[j] = static_cast<Compute<T>>(args.frozen ? 0 : sum_xhat / n);
    args.d_bias[j] += static_cast<Compute<T>>(sum);
    args.d_weight[j] += static_cast<Compute<T>>(sum_xhat);
}

template <class T>
RC_HD void running_coefficients_of_column(const RunningCoefficientsArgs<T>& args, std::int64_t j) {
    set_coefficients(args.out, j, static_cast<double>(args.running_mean[j]), static_cast<double>(args.running_var[j]),
                     args.weight, args.bias);
}

// From the sum of the rows' losses.
template <class T>
RC_HD void conclude_batch(const ConcludeArgs<T>& args, double loss) {
    args.out->loss = loss;
    args.out->finite = is_finite(loss);
    args.out->may_overflow =
        args.out->finite && args.hyper &&
        update_may_overflow(args.rows, *args.largest_a, *args.largest_delta, static_cast<double>(args.hyper->lr));
}

}  // namespace resnetcore

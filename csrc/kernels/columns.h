// What the small operations of ops.h do to one column, one row or one batch, the same on every device: a kernel is a
// loop over these.
#pragma once

#include <limits>

#include "kernels/ops.h"
#include "math/loss.h"
#include "math/normalisation.h"
#include "math/step.h"

namespace resnetcore {

template <class T>
RC_HD void set_coefficients(const NormCoefficients<T>& out, std::int64_t j, double mean, double variance,
                            const Compute<T>* weight, const Compute<T>* bias) {
    const Compute<T> own_weight = weight[j], own_bias = bias[j];  // first: they take longer than what follows
    const double inverse = inverse_deviation(variance);
    out.mean[j] = static_cast<Compute<T>>(mean);
    out.inverse_deviation[j] = static_cast<Compute<T>>(inverse);
    out.scale[j] = static_cast<Compute<T>>(static_cast<double>(own_weight) * inverse);
    out.shift[j] = own_bias;
}

// Where a row's gradient is made: at its place, or where it waits to be rounded. Null where there is none.
template <class T>
RC_HD Compute<T>* gradient_row(const LossArgs<T>& args, std::int64_t i) {
    if (!args.gradient.data) return nullptr;
    if constexpr (computes_itself<T>)
        return args.gradient.data + i * args.gradient.stride;
    else
        return args.unrounded.data + i * args.unrounded.stride;
}

// Row i's loss, which comes back too, and its gradient where `gradient_row` has it. Labels in a device's memory come
// here unchecked: one that is no class makes the loss NaN, so that nothing is updated, and the host looks for it then.
template <class Rule, class T>
RC_HD double loss_of_row(const LossArgs<T>& args, std::int64_t i) {
    const double scale = *args.normaliser * (args.sample_weight ? static_cast<double>(args.sample_weight[i]) : 1.0);
    RowTarget<Compute<T>> target;
    if (args.labels) target.label = args.labels + i;
    if (args.targets.data) target.values = args.targets.data + i * args.targets.stride;
    target.class_weight = args.class_weight;
    target.label_smoothing = args.label_smoothing;
    target.delta = args.delta;
    const Compute<T>* logits = args.logits.data + i * args.logits.stride;
    const double loss = Rule::row(logits, args.columns, target, scale, gradient_row(args, i));
    const bool is_class = !target.label || (*target.label >= 0 && *target.label < args.columns);
    return args.row_loss[i] = is_class ? scale * loss : std::numeric_limits<double>::quiet_NaN();
}

// From column j's moments of all rows. Biased variance in the batch, unbiased in the running statistics (Ioffe &
// Szegedy 2015, algorithm 2).
template <class T>
RC_HD void finish_moments(const CombineMomentsArgs<T>& args, std::int64_t j, const ColumnMoments& all) {
    const double n = static_cast<double>(args.sums.rows);
    const Compute<T> running_mean = args.running_mean[j], running_var = args.running_var[j];
    set_coefficients(args.out, j, all.mean, all.squares / n, args.weight, args.bias);
    args.next_mean[j] = carry_on(running_mean, all.mean);
    args.next_var[j] = carry_on(running_var, all.squares / (n - 1));
}

// From column j's Σ d and Σ d·x̂ of all rows.
template <class T>
RC_HD void finish_norm_sums(const CombineNormSumsArgs<T>& args, std::int64_t j, double sum, double sum_xhat) {
    const double n = static_cast<double>(args.sums.rows);
    args.mean_d[j] = static_cast<Compute<T>>(args.frozen ? 0 : sum / n);
    args.mean_dx[j] = static_cast<Compute<T>>(args.frozen ? 0 : sum_xhat / n);
    args.d_bias[j] = (args.accumulate ? args.d_bias[j] : 0) + static_cast<Compute<T>>(sum);
    args.d_weight[j] = (args.accumulate ? args.d_weight[j] : 0) + static_cast<Compute<T>>(sum_xhat);
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
    args.out->follows = args.shut && *args.shut;
    if (args.shut && !permits(args.out)) *args.shut = 1;
}

}  // namespace resnetcore

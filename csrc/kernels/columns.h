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
                            Compute<T> weight, Compute<T> bias) {
    const double inverse = inverse_deviation(variance);
    out.mean[j] = static_cast<Compute<T>>(mean);
    out.inverse_deviation[j] = static_cast<Compute<T>>(inverse);
    out.scale[j] = static_cast<Compute<T>>(static_cast<double>(weight) * inverse);
    out.shift[j] = bias;
}

// Where a row's gradient is made by itself: at its place, or where it waits to be rounded. Null where there is none.
template <class T>
RC_HD Compute<T>* gradient_row(const LossArgs<T>& args, std::int64_t i) {
    if (!args.gradient.data) return nullptr;
    if constexpr (computes_itself<T>)
        return args.gradient.data + i * args.gradient.stride;
    else
        return args.unrounded.data + i * args.unrounded.stride;
}

template <class T>
RC_HD double scale_of_row(const LossArgs<T>& args, std::int64_t i) {
    return *args.normaliser * (args.sample_weight ? static_cast<double>(args.sample_weight[i]) : 1.0);
}
template <class T>
RC_HD RowTarget<Compute<T>> target_of_row(const LossArgs<T>& args, std::int64_t i) {
    RowTarget<Compute<T>> target;
    if (args.labels) target.label = args.labels + i;
    if (args.targets.data) target.values = args.targets.data + i * args.targets.stride;
    target.class_weight = args.class_weight;
    target.label_smoothing = args.label_smoothing;
    target.delta = args.delta;
    return target;
}
// Labels in a device's memory come here unchecked: one that is no class makes the loss NaN, so that nothing is updated,
// and the host looks for it then.
template <class T>
RC_HD double checked_loss(const LossArgs<T>& args, std::int64_t i, double loss) {
    const bool is_class = !args.labels || (args.labels[i] >= 0 && args.labels[i] < args.columns);
    return is_class ? loss : std::numeric_limits<double>::quiet_NaN();
}

// Row i's loss, which comes back too, and its gradient where `gradient_row` has it.
template <class Rule, class T>
RC_HD double loss_of_row(const LossArgs<T>& args, std::int64_t i) {
    const double scale = scale_of_row(args, i);
    const RowTarget<Compute<T>> target = target_of_row(args, i);
    const OneRow<Compute<T>> row{args.logits.data + i * args.logits.stride, args.columns, target, scale,
                                 gradient_row(args, i)};
    return args.row_loss[i] = checked_loss(args, i, scale * Rule::loss(row));
}

// What a column's norm has before a batch: asked for ahead, as it takes longer than what is made of it.
template <class T>
struct NormColumn {
    Compute<T> weight, bias, running_mean, running_var;
};
template <class T>
RC_HD NormColumn<T> norm_column(const CombineMomentsArgs<T>& args, std::int64_t j) {
    return {args.weight[j], args.bias[j], args.running_mean[j], args.running_var[j]};
}

// From column j's moments of all rows. Biased variance in the batch, unbiased in the running statistics (Ioffe &
// Szegedy 2015, algorithm 2). `out` has the column's coefficients at `at`.
template <class T>
RC_HD void set_batch_coefficients(const CombineMomentsArgs<T>& args, const NormColumn<T>& before,
                                  const ColumnMoments& all, const NormCoefficients<T>& out, std::int64_t at) {
    set_coefficients(out, at, all.mean, all.squares / static_cast<double>(args.sums.rows), before.weight, before.bias);
}
template <class T>
RC_HD void carry_statistics(const CombineMomentsArgs<T>& args, const NormColumn<T>& before, const ColumnMoments& all,
                            std::int64_t j) {
    args.next_mean[j] = carry_on(before.running_mean, all.mean);
    args.next_var[j] = carry_on(before.running_var, all.squares / (static_cast<double>(args.sums.rows) - 1));
}
template <class T>
RC_HD void finish_moments(const CombineMomentsArgs<T>& args, std::int64_t j, const ColumnMoments& all) {
    const NormColumn<T> before = norm_column(args, j);
    set_batch_coefficients(args, before, all, args.out, j);
    carry_statistics(args, before, all, j);
}

// From column j's Σ d and Σ d·x̂ of all rows.
template <class T>
RC_HD Compute<T> mean_of_sum(const CombineNormSumsArgs<T>& args, double sum) {
    return static_cast<Compute<T>>(args.frozen ? 0 : sum / static_cast<double>(args.sums.rows));
}
template <class T>
RC_HD void finish_norm_sums(const CombineNormSumsArgs<T>& args, std::int64_t j, double sum, double sum_xhat) {
    args.mean_d[j] = mean_of_sum(args, sum);
    args.mean_dx[j] = mean_of_sum(args, sum_xhat);
    args.d_bias[j] = (args.accumulate ? args.d_bias[j] : 0) + static_cast<Compute<T>>(sum);
    args.d_weight[j] = (args.accumulate ? args.d_weight[j] : 0) + static_cast<Compute<T>>(sum_xhat);
}

template <class T>
RC_HD void running_coefficients_of_column(const RunningCoefficientsArgs<T>& args, std::int64_t j) {
    set_coefficients(args.out, j, static_cast<double>(args.running_mean[j]), static_cast<double>(args.running_var[j]),
                     args.weight[j], args.bias[j]);
}

// From the sum of the rows' losses.
template <class T>
RC_HD void conclude_batch(const ConcludeArgs<T>& args, double loss) {
    args.out->loss = loss;
    args.out->finite = is_finite(loss);
    args.out->may_overflow =
        args.out->finite && args.hyper &&
        update_may_overflow(args.rows, *args.largest_a, *args.largest_delta, static_cast<double>(args.hyper->lr),
                            static_cast<double>(args.hyper->weight_decay));
    args.out->follows = args.shut && *args.shut;
    if (args.shut && !permits(args.out)) *args.shut = 1;
}

}  // namespace resnetcore

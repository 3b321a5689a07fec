// Batch normalisation's formulas (Ioffe & Szegedy 2015), for host and device. Sums of a column's
// rows, of a chunk of them or of a warp's, are put together in double, whatever the dtype, in an order that the number
// of rows decides: the host adds chunk after chunk, a GPU a fixed tree.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/functions.h"

namespace resnetcore {

constexpr double norm_eps = 1e-5;
constexpr double norm_momentum = 0.1;

struct ColumnMoments {
    double mean = 0;
    double squares = 0;  // Σ (x − mean)²
};

// Chan, Golub & LeVeque 1979: the chunks' means and squared deviations of column j into those of all rows: Σ of the one
// over the chunks is the number of rows times the mean, Σ of the other the squares. `Sums` is PartialSums
// (kernels/norm_ops.h).
template <class Sums>
RC_HD double weighted_mean(const Sums& sums, std::int64_t chunk, std::int64_t j) {
    return static_cast<double>(sums.rows_of(chunk)) * static_cast<double>(sums.first(chunk)[j]);
}
template <class Sums>
RC_HD double shifted_squares(const Sums& sums, std::int64_t chunk, std::int64_t j, double mean) {
    const double apart = static_cast<double>(sums.first(chunk)[j]) - mean;
    return static_cast<double>(sums.second(chunk)[j]) + static_cast<double>(sums.rows_of(chunk)) * apart * apart;
}

// Column j's moments of all rows, and its sums, chunk after chunk.
template <class Sums>
RC_HD ColumnMoments moments_of_all(const Sums& sums, std::int64_t j) {
    ColumnMoments all;
    for (std::int64_t c = 0; c < sums.chunks(); ++c) all.mean += weighted_mean(sums, c, j);
    all.mean /= static_cast<double>(sums.rows);
    for (std::int64_t c = 0; c < sums.chunks(); ++c) all.squares += shifted_squares(sums, c, j, all.mean);
    return all;
}
struct ColumnSums {
    double first = 0, second = 0;
};
template <class Sums>
RC_HD ColumnSums sums_of_all(const Sums& sums, std::int64_t j) {
    ColumnSums all;
    for (std::int64_t c = 0; c < sums.chunks(); ++c) {
        all.first += static_cast<double>(sums.first(c)[j]);
        all.second += static_cast<double>(sums.second(c)[j]);
    }
    return all;
}

// What is added to a running statistic has weight `norm_momentum`.
template <class C>
RC_HD C carry_on(C running, double now) {
    return static_cast<C>((1 - norm_momentum) * static_cast<double>(running) + norm_momentum * now);
}

RC_HD double inverse_deviation(double variance) { return 1 / ::sqrt(variance + norm_eps); }

// y = (z − mean)·scale + shift.
template <class V>
RC_HD V normalise(V z, V mean, V scale, V shift) {
    return multiply_add(z - mean, scale, shift);
}

// W·scale has this bias, as a norm of W's product has: β − mean·scale.
template <class C>
RC_HD C folded_bias(C shift, C mean, C scale) {
    return static_cast<C>(static_cast<double>(shift) - static_cast<double>(mean) * static_cast<double>(scale));
}

// scale·(d − mean_d − x̂·mean_dx) as scale·d + (z − mean)·slope + shift: three operations an element.
template <class V>
struct NormSlope {
    V mean, scale, slope, shift;
    RC_HD V operator()(V d, V z) const { return multiply_add(scale, d, multiply_add(z - mean, slope, shift)); }
};
template <class V>
RC_HD NormSlope<V> norm_slope(V mean, V inverse_deviation, V scale, V mean_d, V mean_dx) {
    return {mean, scale, -(scale * inverse_deviation * mean_dx), -(scale * mean_d)};
}

}  // namespace resnetcore

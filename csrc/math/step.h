// What a step decides about its update from numbers of the whole batch, for host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/functions.h"

namespace resnetcore {

// The larger of two magnitudes; NaN is larger than any.
RC_HD double larger(double a, double b) { return a >= b || a != a ? a : b; }

// Also where the C library's name means something else on a device.
RC_HD bool is_finite(double x) { return x * 0 == 0; }

// No gradient is larger than rows · max|A| · max|δ|. Squares and multiples by any sensible number of an update below
// `small` are far from what a float ends with. Weights, which nobody measures, grow with every step by a decay that
// takes more than all of one away.
RC_HD bool update_may_overflow(std::int64_t rows, double largest_a, double largest_delta, double lr, double decay) {
    constexpr double small = 1e15;
    const double gradient = static_cast<double>(rows) * (largest_a * largest_delta);
    return !(larger(gradient, 1) * larger(lr, 1) < small && decay < small && lr * decay <= 1);
}

// As torch.nn.utils.clip_grad_norm_: the guard keeps a zero gradient from dividing by zero. `largest` 0 does not clip;
// a norm that is NaN makes every gradient NaN.
RC_HD double clip_factor(double norm, double largest) {
    if (!(largest > 0)) return 1;
    const double factor = largest / (norm + 1e-6);
    return factor >= 1 ? 1 : factor;
}

}  // namespace resnetcore

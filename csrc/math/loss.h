// Losses on logits, PyTorch's definitions. Each gives a row's loss as it is, and its gradient times `scale`, the row's
// weight over the caller's normaliser (Σ of the weights; of the weights times the columns, but for cross_entropy); all
// arithmetic is double, as a row is short and its sums must not lose the small terms.
#pragma once

#include <cstdint>

#include "math/functions.h"
#include "math/names.h"

namespace resnetcore {

// One row's target. Exactly one of label and values is given.
template <class T>
struct RowTarget {
    const std::int64_t* label = nullptr;
    const T* values = nullptr;
    const T* class_weight = nullptr;
    double label_smoothing = 0;
    double delta = 1;
};

// What a formula reads and writes: a row, whose numbers are doubles, or several rows side by side
// (kernels/cpu/loss_rows.h), whose numbers are vectors.
template <class T>
struct OneRow {
    using V = double;

    const T* logits;
    const std::int64_t columns;
    const RowTarget<T> target;
    const V scale;
    T* gradient;  // null where there is none

    RC_HD V logit(std::int64_t j) const { return logits[j]; }
    RC_HD V value(std::int64_t j) const { return target.values[j]; }
    RC_HD V is_label(std::int64_t j) const { return j == *target.label ? 1 : 0; }
    // e^(logit − peak), between a pass over the columns and the next one that asks for it.
    RC_HD void note(std::int64_t j, V e) const {
        if (gradient) gradient[j] = static_cast<T>(e);  // the peak's is 1 exactly
    }
    RC_HD V noted(std::int64_t j, V) const { return gradient[j]; }
    RC_HD void give(std::int64_t j, V slope) const { gradient[j] = static_cast<T>(slope); }
    RC_HD bool takes_gradient() const { return gradient; }
};

template <class V>
RC_HD V magnitude(V x) {
    return select(x < V(0), -x, x);
}
// −1, 0 or 1, times `size`; a NaN stays one.
template <class V>
RC_HD V with_sign(V x, V size) {
    return select(x > V(0), size, select(x < V(0), -size, x));
}

// −Σ_c w_c·t_c·log softmax(z)_c with t = (1 − ε)·onehot + ε / C (Szegedy et al. 2016, section 7). With labels the class
// weight of the label multiplies the first part and each class's its own share of the second, as in PyTorch.
struct CrossEntropy {
    static constexpr const char* name = "cross_entropy";
    template <class Rows>
    static RC_HD typename Rows::V loss(Rows& rows) {
        using V = typename Rows::V;
        const std::int64_t n = rows.columns;
        const auto& target = rows.target;
        V peak = rows.logit(0);
        for (std::int64_t j = 1; j < n; ++j) {
            const V z = rows.logit(j);
            peak = select(z > peak, z, peak);
        }
        V sum(0);
        for (std::int64_t j = 0; j < n; ++j) {
            const V e = exp(rows.logit(j) - peak);
            sum = sum + e;
            rows.note(j, e);
        }
        const V log_sum = log(sum), everyones(target.label_smoothing / static_cast<double>(n));
        const auto mass = [&](std::int64_t j) {
            const V hard = target.label ? rows.is_label(j) : rows.value(j);
            const V soft = V(1 - target.label_smoothing) * hard + everyones;
            return target.class_weight ? soft * V(target.class_weight[j]) : soft;
        };
        V loss(0), total(0);  // total: Σ_c w_c·t_c
        for (std::int64_t j = 0; j < n; ++j) {
            const V t = mass(j);
            total = total + t;
            // A target of zero takes no part, even where the logit is −∞.
            loss = select(t != V(0), loss - t * (rows.logit(j) - peak - log_sum), loss);
        }
        if (rows.takes_gradient())
            for (std::int64_t j = 0; j < n; ++j)
                rows.give(j, rows.scale * (rows.noted(j, peak) / sum * total - mass(j)));
        return select(is_nan(sum), sum, loss);  // of a NaN that no target looks at
    }
};

// max(z, 0) − z·t + log(1 + e^−|z|), weighted by w₁·t + w₀·(1 − t) where class weights are given.
struct BinaryCrossEntropy {
    static constexpr const char* name = "binary_cross_entropy";
    template <class Rows>
    static RC_HD typename Rows::V loss(Rows& rows) {
        using V = typename Rows::V;
        const auto* const weight = rows.target.class_weight;
        V loss(0);
        for (std::int64_t j = 0; j < rows.columns; ++j) {
            const V x = rows.logit(j), t = rows.value(j);
            const V w = weight ? V(weight[1]) * t + V(weight[0]) * (V(1) - t) : V(1);
            loss = loss + w * (positive_part(x) - x * t + log1p(exp(-magnitude(x))));
            if (rows.takes_gradient()) rows.give(j, rows.scale * w * (V(1) / (V(1) + exp(-x)) - t));
        }
        return loss;
    }
};

// Σ of what `each(z − t)` adds to the loss, with what `slope(z − t)` is of it.
template <class Rows, class Each, class Slope>
RC_HD typename Rows::V sum_of_differences(Rows& rows, const Each& each, const Slope& slope) {
    using V = typename Rows::V;
    V loss(0);
    for (std::int64_t j = 0; j < rows.columns; ++j) {
        const V d = rows.logit(j) - rows.value(j);
        loss = loss + each(d);
        if (rows.takes_gradient()) rows.give(j, rows.scale * slope(d));
    }
    return loss;
}

struct MeanSquaredError {
    static constexpr const char* name = "mse";
    template <class Rows>
    static RC_HD typename Rows::V loss(Rows& rows) {
        using V = typename Rows::V;
        return sum_of_differences(rows, [](V d) { return d * d; }, [](V d) { return V(2) * d; });
    }
};

struct MeanAbsoluteError {
    static constexpr const char* name = "mae";
    template <class Rows>
    static RC_HD typename Rows::V loss(Rows& rows) {
        using V = typename Rows::V;
        return sum_of_differences(rows, [](V d) { return magnitude(d); }, [](V d) { return with_sign(d, V(1)); });
    }
};

struct Huber {  // Huber 1964: quadratic within delta
    static constexpr const char* name = "huber";
    template <class Rows>
    static RC_HD typename Rows::V loss(Rows& rows) {
        using V = typename Rows::V;
        const V delta(rows.target.delta);
        return sum_of_differences(
            rows,
            [&](V d) {
                const V size = magnitude(d);
                return select(size <= delta, V(0.5) * d * d, delta * (size - V(0.5) * delta));
            },
            [&](V d) { return select(magnitude(d) <= delta, d, with_sign(d, delta)); });
    }
};

using Losses = TypeList<CrossEntropy, BinaryCrossEntropy, MeanSquaredError, MeanAbsoluteError, Huber>;

inline int loss_count() { return Losses::size; }
inline const char* loss_name(int index) { return type_name(index, Losses{}); }
inline int find_loss(std::string_view name) { return find_type(name, Losses{}); }

}  // namespace resnetcore

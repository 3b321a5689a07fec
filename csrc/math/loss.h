// Losses on logits, PyTorch's definitions. Each returns one row's loss as it is, and its gradient times `scale`, the
// row's weight over the caller's normaliser (Σ of the weights; of the weights times the columns, but for
// cross_entropy); all arithmetic is double, as a row is short and its sums must not lose the small terms.
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

// −Σ_c w_c·t_c·log softmax(z)_c with t = (1 − ε)·onehot + ε / C (Szegedy et al. 2016, section 7). With labels the class
// weight of the label multiplies the first part and each class's its own share of the second, as in PyTorch.
struct CrossEntropy {
    static constexpr const char* name = "cross_entropy";
    template <class T>
    static RC_HD double row(const T* z, std::int64_t n, const RowTarget<T>& target, double scale, T* gradient) {
        double peak = z[0];
        for (std::int64_t j = 1; j < n; ++j) peak = z[j] > peak ? z[j] : peak;
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            const double e = ::exp(z[j] - peak);
            sum += e;
            if (gradient) gradient[j] = static_cast<T>(e);  // kept for below; the peak's is 1 exactly
        }
        const double log_sum = ::log(sum);
        double loss = 0, total = 0;  // total: Σ_c w_c·t_c
        const double everyones = target.label_smoothing / static_cast<double>(n);
        auto mass = [&](std::int64_t j) {
            const double hard = target.label ? (j == *target.label ? 1.0 : 0.0) : static_cast<double>(target.values[j]);
            const double soft = (1 - target.label_smoothing) * hard + everyones;
            return target.class_weight ? soft * target.class_weight[j] : soft;
        };
        for (std::int64_t j = 0; j < n; ++j) {
            const double t = mass(j);
            total += t;
            // A target of zero takes no part, even where the logit is −∞.
            if (t != 0) loss -= t * (z[j] - peak - log_sum);
        }
        if (gradient)
            for (std::int64_t j = 0; j < n; ++j)
                gradient[j] = static_cast<T>(scale * (gradient[j] / sum * total - mass(j)));
        return loss != loss || sum != sum ? sum + loss : loss;
    }
};

// max(z, 0) − z·t + log(1 + e^−|z|), weighted by w₁·t + w₀·(1 − t) where class weights are given.
struct BinaryCrossEntropy {
    static constexpr const char* name = "binary_cross_entropy";
    template <class T>
    static RC_HD double row(const T* z, std::int64_t n, const RowTarget<T>& target, double scale, T* gradient) {
        double loss = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            const double x = z[j], t = target.values[j];
            const double w = target.class_weight ? target.class_weight[1] * t + target.class_weight[0] * (1 - t) : 1;
            loss += w * ((x > 0 ? x : x == x ? 0 : x) - x * t + ::log1p(::exp(-::fabs(x))));
            if (gradient) gradient[j] = static_cast<T>(scale * w * (1 / (1 + ::exp(-x)) - t));
        }
        return loss;
    }
};

struct MeanSquaredError {
    static constexpr const char* name = "mse";
    template <class T>
    static RC_HD double row(const T* z, std::int64_t n, const RowTarget<T>& target, double scale, T* gradient) {
        double loss = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            const double d = static_cast<double>(z[j]) - target.values[j];
            loss += d * d;
            if (gradient) gradient[j] = static_cast<T>(scale * 2 * d);
        }
        return loss;
    }
};

struct MeanAbsoluteError {
    static constexpr const char* name = "mae";
    template <class T>
    static RC_HD double row(const T* z, std::int64_t n, const RowTarget<T>& target, double scale, T* gradient) {
        double loss = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            const double d = static_cast<double>(z[j]) - target.values[j];
            loss += ::fabs(d);
            if (gradient) gradient[j] = static_cast<T>(scale * (d > 0 ? 1 : d < 0 ? -1 : d));
        }
        return loss;
    }
};

struct Huber {  // Huber 1964: quadratic within delta
    static constexpr const char* name = "huber";
    template <class T>
    static RC_HD double row(const T* z, std::int64_t n, const RowTarget<T>& target, double scale, T* gradient) {
        double loss = 0;
        const double delta = target.delta;
        for (std::int64_t j = 0; j < n; ++j) {
            const double d = static_cast<double>(z[j]) - target.values[j], size = ::fabs(d);
            loss += size <= delta ? 0.5 * d * d : delta * (size - 0.5 * delta);
            if (gradient)
                gradient[j] = static_cast<T>(scale * (size <= delta ? d : d > 0 ? delta : d < 0 ? -delta : d));
        }
        return loss;
    }
};

using Losses = TypeList<CrossEntropy, BinaryCrossEntropy, MeanSquaredError, MeanAbsoluteError, Huber>;

inline int loss_count() { return Losses::size; }
inline const char* loss_name(int index) { return type_name(index, Losses{}); }
inline int find_loss(std::string_view name) { return find_type(name, Losses{}); }

}  // namespace resnetcore

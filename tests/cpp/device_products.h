// Sums of products with their epilogues on a CUDA device, and in plain loops in double: what residual_forward and
// residual_backward_data are checked against.
#pragma once

#include <memory>

#include "device_matrix.h"
#include "math/activation.h"
#include "math/step.h"

namespace resnetcore {

template <class T>
using Matrices = std::vector<std::unique_ptr<DeviceMatrix<T>>>;

// A sum over sources as the kernels see it, and in double.
template <class T>
struct Sum {
    using C = Compute<T>;
    std::int64_t rows, columns;
    Fill fill;
    Gap gap;
    Matrices<T> a, panels, identity;
    Matrices<C> w;
    std::vector<Source<T>> sources;
    std::vector<Rows<T>> skips;

    Sum(std::int64_t rows, std::int64_t columns, const std::vector<std::int64_t>& inners, int n_identity, Fill fill,
        Gap gap = as_wanted)
        : rows(rows), columns(columns), fill(fill), gap(gap) {
        const KernelTable<T>& k = device_kernels<T>();
        for (std::int64_t inner : inners) {
            a.push_back(std::make_unique<DeviceMatrix<T>>(rows, inner, fill, gap(inner, 3)));
            w.push_back(std::make_unique<DeviceMatrix<C>>(inner, columns, fill, 1));
            panels.push_back(std::make_unique<DeviceMatrix<T>>(1, operand_size(k, inner, columns)));
            k.pack_operand(inner, columns, w.back()->view(), panels.back()->data());
            sources.push_back({a.back()->view(), panels.back()->data(), inner, nullptr});
        }
        for (int i = 0; i < n_identity; ++i) {
            identity.push_back(std::make_unique<DeviceMatrix<T>>(rows, columns, fill, gap(columns, 1 + i % 3)));
            skips.push_back(identity.back()->view());
        }
    }
    // The sum, and that of the magnitudes.
    double at(std::int64_t i, std::int64_t j, double& size) {
        double sum = 0;
        for (std::size_t s = 0; s < sources.size(); ++s)
            for (std::int64_t k = 0; k < sources[s].inner; ++k) {
                const double term = a[s]->at(i, k) * value_of(stored<T>(w[s]->at(k, j)));
                sum += term, size += std::fabs(term);
            }
        for (auto& one : identity) sum += one->at(i, j), size += std::fabs(one->at(i, j));
        return sum;
    }
};

// A magnitude that a kernel keeps, beside one that was there before.
class KeptLargest {
public:
    double* data() const { return kept_.data(); }
    // Of results as T holds them; NaN is larger than any.
    template <class T>
    void check(const char* where, DeviceMatrix<T>& results) const {
        double most = before_;
        for (std::int64_t i = 0; i < results.rows; ++i)
            for (std::int64_t j = 0; j < results.columns; ++j) most = larger(most, std::fabs(results.at(i, j)));
        const double got = kept_.get();
        CHECK(most != most ? got != got : got == most, "%s: the largest is %.17g, not %.17g", where, got, most);
    }

private:
    const double before_ = one_of({0, 0, 0, 1000});
    OnDevice<double> kept_{before_};
};

template <class T>
struct Case {
    using C = Compute<T>;
    std::string where;
    Sum<T> sum;
    int activation;
    bool exact;  // integers without anything that rounds

    std::int64_t rows() const { return sum.rows; }
    std::int64_t columns() const { return sum.columns; }
    std::int64_t gap(std::int64_t wanted) const { return sum.gap(sum.columns, wanted); }
    DeviceMatrix<C> mask{rows(), columns(), sum.fill, gap(2)}, bias{1, columns(), sum.fill},
        wide{rows(), columns(), Fill::zeros, gap(1)};
    DeviceMatrix<T> out{rows(), columns(), Fill::zeros, gap(5)}, argument{rows(), columns(), Fill::zeros, gap(1)};
    DeviceMatrix<T> z{rows(), columns(), sum.fill, gap(2)}, saved{rows(), columns(), sum.fill, gap(3)};
    DeviceMatrix<C> center{1, columns(), sum.fill}, scale{1, columns(), sum.fill}, shift{1, columns(), sum.fill};

    // `size`: what a rounding error is relative to, besides the value.
    template <class U>
    void check(const char* what, DeviceMatrix<U>& got, std::int64_t i, std::int64_t j, double value, double size) {
        if (exact) {
            const U rounded = stored<U>(value);
            CHECK(std::memcmp(&got(i, j), &rounded, sizeof rounded) == 0 || (value == 0 && got.at(i, j) == 0),
                  "%s %s at %d %d: %g, not %g", where.c_str(), what, int(i), int(j), got.at(i, j), value);
        } else {
            const double allowed = product_error<T> * (size + 1) + rounding<U> * 4 * (std::fabs(value) + 1e-2);
            CHECK(std::fabs(got.at(i, j) - value) <= allowed, "%s %s at %d %d: %.9g, not %.9g (allowed %g)",
                  where.c_str(), what, int(i), int(j), got.at(i, j), value, allowed);
        }
    }

    void forward() {
        const bool has_bias = either(), has_branch = either(), normalised = either(), branch_mask = either();
        const bool has_mask = either(), keeps = either(), widens = !computes_itself<T> && either();
        ForwardArgs<T> args;
        args.rows = rows(), args.columns = columns(), args.activation = activation;
        args.sources = sum.sources.data(), args.n_sources = int(sum.sources.size());
        args.identity = sum.skips.data(), args.n_identity = int(sum.skips.size());
        if (has_bias) args.bias = bias.data();
        if (has_branch) args.branch.z = z.view();
        if (has_branch && normalised)
            args.branch.center = center.data(), args.branch.scale = scale.data(), args.branch.shift = shift.data();
        if (has_branch && branch_mask) args.branch.mask = mask.view();
        if (has_mask) args.mask = mask.view();
        if (keeps) args.argument = argument.mutable_view();
        if (widens) args.wide = wide.mutable_view();
        const bool writes = !widens || either();
        if (writes) args.out = out.mutable_view();
        const KeptLargest largest;
        args.largest = largest.data();
        device_kernels<T>().forward(args);
        out.download(), argument.download(), wide.download();
        if (!writes)
            for (std::int64_t i = 0; i < rows(); ++i)
                for (std::int64_t j = 0; j < columns(); ++j) out(i, j) = stored<T>(wide.at(i, j));
        largest.check(where.c_str(), out);
        for (std::int64_t i = 0; i < rows(); ++i)
            for (std::int64_t j = 0; j < columns(); ++j) {
                double size = 2, value = sum.at(i, j, size);
                if (has_bias) value += bias.at(0, j);
                if (has_branch) {
                    double b = z.at(i, j);
                    if (normalised) b = (b - center.at(0, j)) * scale.at(0, j) + shift.at(0, j);
                    value += branch_mask ? b * mask.at(i, j) : b;
                }
                if (keeps) check("argument", argument, i, j, value, size);
                double a = 0;
                visit_type(activation, Activations{}, [&](auto g) { a = decltype(g)::forward(value); });
                if (has_mask) a *= mask.at(i, j);
                if (writes) check("out", out, i, j, a, 2 * size);
                if (widens) check("wide", wide, i, j, a, 2 * size);
            }
    }

    void backward() {
        const bool has_mask = either(), argument_kept = either() || activation_needs_argument(activation);
        BackwardDataArgs<T> args;
        args.rows = rows(), args.columns = columns(), args.activation = activation;
        args.sources = sum.sources.data(), args.n_sources = int(sum.sources.size());
        args.identity = sum.skips.data(), args.n_identity = int(sum.skips.size());
        if (has_mask) args.mask = mask.view();
        args.saved = saved.view(), args.saved_is_argument = argument_kept;
        args.out = out.mutable_view();
        const KeptLargest largest;
        args.largest = largest.data();
        device_kernels<T>().backward_data(args);
        out.download();
        largest.check(where.c_str(), out);
        for (std::int64_t i = 0; i < rows(); ++i)
            for (std::int64_t j = 0; j < columns(); ++j) {
                double size = 2, value = sum.at(i, j, size), slope = 0;
                if (has_mask) value *= mask.at(i, j);
                visit_type(activation, Activations{},
                           [&](auto g) { slope = derivative<decltype(g)>(saved.at(i, j), argument_kept); });
                check("data", out, i, j, value * slope, 4 * size);
            }
    }
};

// Among zeros, one result that is the largest, wherever it lies.
template <class T>
void check_largest_places(std::initializer_list<std::int64_t> heights, std::initializer_list<std::int64_t> widths,
                          Gap gap = as_wanted) {
    for (std::int64_t rows : heights)
        for (std::int64_t columns : widths)
            for (double value : {-3.25, 1e-39, -1e308, double(-INFINITY), double(NAN)}) {
                DeviceMatrix<T> in(rows, columns, Fill::zeros, gap(columns, 1)),
                    out(rows, columns, Fill::zeros, gap(columns, 1));
                const std::int64_t i = one_of({0, rows / 2, rows - 1}), j = one_of({0, columns / 2, columns - 1});
                in(i, j) = stored<T>(value);
                in.upload();
                const Rows<T> skip = in.view();
                const std::string where = std::string(type_of<T>()) + ", " + std::to_string(value) + " at " +
                                          std::to_string(i) + " " + std::to_string(j) + " of " + std::to_string(rows) +
                                          " x " + std::to_string(columns);
                const auto check = [&](auto args, auto kernel) {
                    const KeptLargest largest;
                    args.rows = rows, args.columns = columns, args.identity = &skip, args.n_identity = 1;
                    args.activation = find_activation("identity");
                    args.out = out.mutable_view(), args.largest = largest.data();
                    kernel(args);
                    out.download();
                    largest.check(where.c_str(), out);
                };
                check(ForwardArgs<T>(), device_kernels<T>().forward);
                check(BackwardDataArgs<T>(), device_kernels<T>().backward_data);
            }
}

}  // namespace resnetcore

// Batch normalisation on a CUDA device against plain loops in double: chunks of rows, what becomes of their sums, the
// backward, and a norm folded into a weight.
#include <memory>

#include "device_matrix.h"
#include "math/activation.h"
#include "math/normalisation.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    using C = Compute<T>;
    std::string where;
    std::int64_t rows, columns, chunk;
    bool masked;
    Gap gap;
    const KernelTable<T>& k = device_kernels<T>();
    std::int64_t chunks = (rows + chunk - 1) / chunk;
    DeviceMatrix<T> z{rows, columns, Fill::reals, gap(columns, 3)}, delta{rows, columns, Fill::reals, gap(columns, 2)};
    DeviceMatrix<C> mask{rows, columns, Fill::reals, gap(columns, 1)}, partial{2 * chunks, columns, Fill::reals};
    DeviceMatrix<C> mean{1, columns, Fill::reals}, inverse{1, columns, Fill::reals}, scale{1, columns, Fill::reals},
        shift{1, columns, Fill::reals};
    DeviceMatrix<C> weight{1, columns, Fill::reals}, bias{1, columns, Fill::reals};
    DeviceMatrix<C> mean_d{1, columns, Fill::reals}, mean_dx{1, columns, Fill::reals};

    PartialSums<T> sums() { return {partial.data(), columns, rows, chunk}; }
    NormCoefficients<T> coefficients() { return {mean.data(), inverse.data(), scale.data(), shift.data()}; }
    template <class U>
    void check(const char* what, DeviceMatrix<U>& got, std::int64_t i, std::int64_t j, double exact, double size) {
        CHECK(std::fabs(got.at(i, j) - exact) <= (8 * rounding<C> + rounding<U>)*size, "%s %s at %d %d: %.9g, not %.9g",
              where.c_str(), what, int(i), int(j), got.at(i, j), exact);
    }
    double d(std::int64_t i, std::int64_t j) { return delta.at(i, j) * (masked ? mask.at(i, j) : 1); }
    double xhat(std::int64_t i, std::int64_t j) { return (z.at(i, j) - mean.at(0, j)) * inverse.at(0, j); }

    // A mean far from zero costs the deviations no digits. The rows come in two calls.
    void moments() {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) z(i, j) = stored<T>(z.at(i, j) + 64);
        z.upload();
        const std::int64_t half = chunks / 2 * chunk;
        k.moments({half, columns, 0, z.view(), sums()});
        k.moments({rows - half, columns, half, {z.data() + half * z.stride, z.stride}, sums()});
        partial.download();
        for (std::int64_t c = 0; c < chunks; ++c)
            for (std::int64_t j = 0; j < columns; ++j) {
                const std::int64_t begin = c * chunk, end = std::min(rows, begin + chunk);
                double exact = 0, squares = 0;
                for (std::int64_t i = begin; i < end; ++i) exact += z.at(i, j);
                exact /= static_cast<double>(end - begin);
                check("mean", partial, 2 * c, j, exact, 64);
                // Of deviations from the mean as stored: that is what chunks are combined by.
                for (std::int64_t i = begin; i < end; ++i) {
                    const double apart = z.at(i, j) - partial.at(2 * c, j);
                    squares += apart * apart;
                }
                check("squares", partial, 2 * c + 1, j, squares, 4 * squares + 1e-2);
            }
    }
    template <class Work>
    void check_combined(Work work) {
        const bool in_place = either();
        DeviceMatrix<C> running_mean(1, columns, Fill::reals), running_var(1, columns, Fill::reals);
        DeviceMatrix<C> next_mean(1, columns, Fill::reals), next_var(1, columns, Fill::reals);
        CombineMomentsArgs<T> args{0,
                                   columns,
                                   sums(),
                                   weight.data(),
                                   bias.data(),
                                   coefficients(),
                                   running_mean.data(),
                                   running_var.data(),
                                   next_mean.data(),
                                   next_var.data()};
        if (in_place) args.running_mean = next_mean.data(), args.running_var = next_var.data();
        const std::vector<C> mean_before = in_place ? next_mean.host : running_mean.host,
                             var_before = in_place ? next_var.host : running_var.host;
        args.end = columns;
        work(args);
        for (DeviceMatrix<C>* array : {&mean, &inverse, &scale, &shift, &next_mean, &next_var}) array->download();
        for (std::int64_t j = 0; j < columns; ++j) {
            long double sum = 0, of_squares = 0;
            for (std::int64_t i = 0; i < rows; ++i) sum += z.at(i, j);
            const long double center = sum / rows;
            for (std::int64_t i = 0; i < rows; ++i) of_squares += (z.at(i, j) - center) * (z.at(i, j) - center);
            const double exact = static_cast<double>(center), squares = static_cast<double>(of_squares);
            const double n = static_cast<double>(rows), deviation = std::sqrt(squares / n + 1e-5);
            check("batch mean", mean, 0, j, exact, 64);
            check("inverse deviation", inverse, 0, j, 1 / deviation, 8 / deviation + 1e-3 / (squares / n + 1e-5));
            check("scale", scale, 0, j, weight.at(0, j) * inverse.at(0, j), std::fabs(scale.at(0, j)) + 1e-30);
            CHECK(shift.at(0, j) == bias.at(0, j), "%s: shift", where.c_str());
            const double running = value_of(mean_before[j]), variance = value_of(var_before[j]);
            check("running mean", next_mean, 0, j, 0.9 * running + 0.1 * exact, 64);
            if (rows > 1)
                check("running variance", next_var, 0, j, 0.9 * variance + 0.1 * squares / (n - 1), 4 + squares / n);
        }
    }
    void combine() {
        check_combined([&](CombineMomentsArgs<T> args) {
            args.end = columns / 2;
            k.combine_moments(args);
            args.begin = columns / 2, args.end = columns;
            k.combine_moments(args);
        });
    }
    // In one call with the step that follows, which does with the coefficients what it does by itself.
    void apply_norm(int skips, bool product, bool keeps_argument = true) {
        std::vector<std::unique_ptr<DeviceMatrix<T>>> skip;
        std::vector<Rows<T>> identity;
        for (int i = 0; i < skips; ++i) {
            skip.push_back(std::make_unique<DeviceMatrix<T>>(rows, columns, Fill::reals, gap(columns, 4)));
            identity.push_back(skip.back()->view());
        }
        const std::int64_t inner = 3;
        DeviceMatrix<T> a(rows, inner, Fill::reals, gap(inner, 1)),
            operand(1, operand_size(k, inner, columns), Fill::reals);
        const Source<T> source{a.view(), operand.data(), inner, nullptr};
        DeviceMatrix<T> out(rows, columns, Fill::zeros, gap(columns, 5)),
            alone(rows, columns, Fill::zeros, gap(columns, 5)), argument(rows, columns, Fill::zeros, gap(columns, 6));
        const OnDevice<double> largest(0.0), largest_alone(0.0);
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns, args.activation = find_activation("relu");
        args.sources = &source, args.n_sources = product;
        args.identity = identity.data(), args.n_identity = skips;
        args.branch.z = z.view(), args.branch.center = mean.data(), args.branch.scale = scale.data();
        args.branch.shift = shift.data();
        if (masked) args.branch.mask = mask.view();
        if (keeps_argument) args.argument = argument.mutable_view();
        args.out = out.mutable_view(), args.largest = largest.data();
        check_combined([&](const CombineMomentsArgs<T>& combine) { k.apply_norm(combine, args); });
        args.out = alone.mutable_view(), args.argument = {}, args.largest = largest_alone.data();
        k.forward(args);
        out.download(), alone.download(), argument.download();
        CHECK(out.same_bits(alone) && largest.get() == largest_alone.get(), "%s: normalised otherwise", where.c_str());
        if (!keeps_argument) return;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                CHECK(std::max(0.0, argument.at(i, j)) == out.at(i, j), "%s: the argument of relu", where.c_str());
    }
    void norm_sums(bool frozen) {
        check_sums(frozen, [&](const CombineNormSumsArgs<T>& combine) {
            NormSumsArgs<T> args{rows, columns, 0, delta.view(), {}, z.view(), mean.data(), inverse.data(), sums()};
            if (masked) args.mask = mask.view();
            k.norm_sums(args);
            k.combine_norm_sums(combine);
        });
    }
    void undo_norm(bool frozen) {
        DeviceMatrix<T> out(rows, columns, Fill::zeros, gap(columns, 5)),
            alone(rows, columns, Fill::zeros, gap(columns, 5));
        const OnDevice<double> largest(0.0), largest_alone(0.0);
        NormBackwardArgs<T> args = backward_args(true);
        args.out = out.mutable_view(), args.largest = largest.data();
        check_sums(frozen, [&](const CombineNormSumsArgs<T>& combine) { k.undo_norm(combine, args); });
        args.out = alone.mutable_view(), args.largest = largest_alone.data();
        k.norm_backward(args);
        out.download(), alone.download();
        double most = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) most = std::max(most, std::fabs(out.at(i, j)));
        CHECK(out.same_bits(alone), "%s: undone otherwise", where.c_str());
        CHECK(largest.get() == most && largest_alone.get() == most, "%s: the largest is %g and %g, not %g",
              where.c_str(), largest.get(), largest_alone.get(), most);
    }
    template <class Work>
    void check_sums(bool frozen, Work work) {
        DeviceMatrix<C> d_weight(1, columns, Fill::reals), d_bias(1, columns, Fill::reals);
        const std::vector<C> weight_before = d_weight.host, bias_before = d_bias.host;
        const bool accumulate = either();
        work(CombineNormSumsArgs<T>{0, columns, sums(), frozen, accumulate, mean_d.data(), mean_dx.data(),
                                    d_weight.data(), d_bias.data()});
        for (DeviceMatrix<C>* array : {&mean_d, &mean_dx, &d_weight, &d_bias}) array->download();
        for (std::int64_t j = 0; j < columns; ++j) {
            long double first = 0, second = 0;
            double size = 1;
            for (std::int64_t i = 0; i < rows; ++i)
                first += d(i, j), second += d(i, j) * xhat(i, j),
                    size += std::fabs(d(i, j) * inverse.at(0, j)) * (64 + std::fabs(z.at(i, j)));
            const double n = static_cast<double>(rows);
            check("d_bias", d_bias, 0, j, static_cast<double>((accumulate ? value_of(bias_before[j]) : 0) + first),
                  size);
            check("d_weight", d_weight, 0, j,
                  static_cast<double>((accumulate ? value_of(weight_before[j]) : 0) + second), size);
            check("mean_d", mean_d, 0, j, frozen ? 0 : static_cast<double>(first / n), size / n);
            check("mean_dx", mean_dx, 0, j, frozen ? 0 : static_cast<double>(second / n), size / n);
        }
    }
    NormBackwardArgs<T> backward_args(bool normalised) {
        NormBackwardArgs<T> args;
        args.rows = rows, args.columns = columns, args.delta = delta.view();
        if (masked) args.mask = mask.view();
        if (normalised) {
            args.z = z.view();
            args.mean = mean.data(), args.inverse_deviation = inverse.data(), args.scale = scale.data();
            args.mean_d = mean_d.data(), args.mean_dx = mean_dx.data();
        }
        return args;
    }
    void backward(bool normalised) {
        DeviceMatrix<T> out(rows, columns, Fill::zeros, gap(columns, 5));
        NormBackwardArgs<T> args = backward_args(normalised);
        args.out = out.mutable_view();
        k.norm_backward(args);
        out.download();
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                double exact = d(i, j), size = 8;
                if (normalised) {
                    exact = scale.at(0, j) * (exact - mean_d.at(0, j) - xhat(i, j) * mean_dx.at(0, j));
                    size += std::fabs(scale.at(0, j)) * (1 + std::fabs(inverse.at(0, j) * mean_dx.at(0, j)) * 128);
                }
                check("backward", out, i, j, exact, size);
            }
    }
    void fold() {
        DeviceMatrix<C> variance(1, columns, Fill::reals), running(1, columns, Fill::reals);
        for (C& x : variance.host) x = std::fabs(x);
        variance.upload();
        k.running_coefficients({columns, running.data(), variance.data(), weight.data(), bias.data(), coefficients()});
        for (DeviceMatrix<C>* array : {&mean, &inverse, &scale, &shift}) array->download();
        const std::int64_t inner = 5;
        DeviceMatrix<C> w(inner, columns, Fill::reals), panels(1, packed_size(inner, columns, k.panel)),
            folded(1, columns);
        DeviceMatrix<T> operand(1, operand_size(k, inner, columns), Fill::reals);
        k.pack(inner, columns, w.view(), panels.data());
        k.fold({inner, columns, panels.data(), coefficients(), operand.data(), folded.data()});
        operand.download(), folded.download();
        const std::int64_t depth = operand_rows<T>(inner);
        for (std::int64_t j = 0; j < panel_count(columns, k.panel) * k.panel; ++j) {
            if (j < columns) {
                const double root = 1 / std::sqrt(variance.at(0, j) + 1e-5);
                check("running scale", scale, 0, j, weight.at(0, j) * root, std::fabs(weight.at(0, j) * root));
                check("folded bias", folded, 0, j, bias.at(0, j) - running.at(0, j) * scale.at(0, j),
                      1 + std::fabs(scale.at(0, j)));
            }
            for (std::int64_t i = 0; i < depth; ++i)
                check("folded weight", operand, 0, (j / k.panel * depth + i) * k.panel + j % k.panel,
                      i < inner && j < columns ? w.at(i, j) * scale.at(0, j) : 0,
                      j < columns ? std::fabs(scale.at(0, j)) : 0);
        }
    }
};

template <class T>
void run(Gap gap) {
    const auto each_of = [gap](std::int64_t rows, std::int64_t columns, std::int64_t chunk) {
        Case<T> one{std::string(type_of<T>()) + " " + std::to_string(rows) + " x " + std::to_string(columns),
                    rows,
                    columns,
                    chunk,
                    either(),
                    gap};
        one.moments();
        one.combine();
        one.norm_sums(either());
        one.backward(false);
        one.backward(true);
        for (int skips : {0, 1, 9}) one.apply_norm(skips, false);
        one.apply_norm(1, true);
        one.apply_norm(1, false, false);
        one.undo_norm(either());
        one.fold();
    };
    constexpr std::int64_t rows_and_chunk[][2] = {{1, 8}, {7, 8}, {64, 64}, {100, 8}, {100, 64}};
    for (const auto& [rows, chunk] : rows_and_chunk)
        for (std::int64_t columns : {1, 63, 64, 130}) each_of(rows, columns, chunk);
    each_of(4500, 9, 8);   // several rows, and chunks, for each thread of a block
    each_of(1030, 16, 8);  // more of them than it keeps
}

// More elements than the blocks that measure have threads (most_measuring_blocks), so that these go round again.
void every_element_is_measured() {
    const std::int64_t rows = 1027, columns = 257;
    DeviceMatrix<float> in(rows, columns), out(rows, columns);
    in(rows - 1, columns - 1) = -2.5f;
    in.upload();
    const Rows<float> skip = in.view();
    const auto check = [&](const char* what, auto args, auto kernel) {
        const OnDevice<double> largest(0.0);
        args.rows = rows, args.columns = columns, args.out = out.mutable_view(), args.largest = largest.data();
        kernel(args);
        out.download();
        CHECK(out.same_bits(in) && largest.get() == 2.5, "%s of all: the largest is %g", what, largest.get());
    };
    ForwardArgs<float> forward;
    forward.identity = &skip, forward.n_identity = 1, forward.activation = find_activation("identity");
    check("a step without a product", forward, device_kernels<float>().forward);
    NormBackwardArgs<float> backward;
    backward.delta = skip;
    check("a norm's backward", backward, device_kernels<float>().norm_backward);
}

}  // namespace

int main() {
    every_element_is_measured();
    for (Gap gap : {as_wanted, to_boundaries}) each_type([gap](auto type) { run<decltype(type)>(gap); });
    return summary("cuda_norms");
}

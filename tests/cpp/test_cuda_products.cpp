// residual_forward and residual_backward_data on a CUDA device against plain loops in double: every type of storage,
// sizes around a block's tile, any number of sources and skips, every activation and part of the epilogue.
#include <memory>

#include "device_matrix.h"
#include "math/activation.h"

using namespace resnetcore;

namespace {

template <class T>
using Matrices = std::vector<std::unique_ptr<DeviceMatrix<T>>>;

// A sum over sources as the kernels see it, and in double.
template <class T>
struct Sum {
    using C = Compute<T>;
    std::int64_t rows, columns;
    Fill fill;
    Matrices<T> a, panels, identity;
    Matrices<C> w;
    std::vector<Source<T>> sources;
    std::vector<Rows<T>> skips;

    Sum(std::int64_t rows, std::int64_t columns, const std::vector<std::int64_t>& inners, int n_identity, Fill fill)
        : rows(rows), columns(columns), fill(fill) {
        const KernelTable<T>& k = device_kernels<T>();
        for (std::int64_t inner : inners) {
            a.push_back(std::make_unique<DeviceMatrix<T>>(rows, inner, fill, 3));
            w.push_back(std::make_unique<DeviceMatrix<C>>(inner, columns, fill, 1));
            panels.push_back(std::make_unique<DeviceMatrix<T>>(1, operand_size<T>(inner, columns, k.panel)));
            k.pack_operand(inner, columns, w.back()->view(), panels.back()->data());
            sources.push_back({a.back()->view(), panels.back()->data(), inner, nullptr});
        }
        for (int i = 0; i < n_identity; ++i) {
            identity.push_back(std::make_unique<DeviceMatrix<T>>(rows, columns, fill, 1 + i % 3));
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

template <class T>
struct Case {
    using C = Compute<T>;
    std::string where;
    Sum<T> sum;
    int activation;
    bool exact;  // integers without anything that rounds

    std::int64_t rows() const { return sum.rows; }
    std::int64_t columns() const { return sum.columns; }
    DeviceMatrix<C> mask{rows(), columns(), sum.fill, 2}, bias{1, columns(), sum.fill},
        wide{rows(), columns(), Fill::zeros, 1};
    DeviceMatrix<T> out{rows(), columns(), Fill::zeros, 5}, argument{rows(), columns(), Fill::zeros, 1};
    DeviceMatrix<T> z{rows(), columns(), sum.fill, 2}, saved{rows(), columns(), sum.fill, 3};
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
        device_kernels<T>().forward(args);
        out.download(), argument.download(), wide.download();
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
        device_kernels<T>().backward_data(args);
        out.download();
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

template <class T>
void run() {
    const std::vector<std::vector<std::int64_t>> inners = {
        {}, {0}, {1}, {17, 3}, {64}, {530}, {16}, {33, 0, 70}, {0, 0, 2, 0}, std::vector<std::int64_t>(11, 5)};
    for (int turn = 0; turn < 120; ++turn) {
        const Fill fill = turn % 3 == 0 ? Fill::integers : Fill::reals;
        const int activation = fill == Fill::integers ? turn / 3 % 2 : turn % activation_count();
        const std::int64_t rows = one_of({1, 5, 63, 64, 65, 130}), columns = one_of({1, 7, 63, 64, 65, 129});
        const std::vector<std::int64_t>& terms = inners[static_cast<std::size_t>(turn) % inners.size()];
        const int skips = int(one_of({0, 0, 1, 2, 12}));
        Case<T> one{std::string(type_of<T>()) + " " + std::to_string(rows) + " x " + std::to_string(columns) +
                        " from " + std::to_string(terms.size()) + " of " +
                        std::to_string(terms.empty() ? 0 : terms[0]) + ", " + std::to_string(skips) + " skips, " +
                        activation_name(activation),
                    Sum<T>(rows, columns, terms, skips, fill), activation, fill == Fill::integers};
        one.forward();
        one.backward();
    }
}

// What a layer must not turn into a number, and the derivative at zero.
template <class T>
void special_values() {
    for (int activation = 0; activation < activation_count(); ++activation) {
        DeviceMatrix<T> in(1, 3, Fill::zeros), out(1, 3, Fill::zeros);
        in(0, 0) = stored<T>(NAN), in(0, 1) = stored<T>(1);
        in.upload();
        const Rows<T> skip = in.view();
        ForwardArgs<T> args;
        args.rows = 1, args.columns = 3, args.activation = activation;
        args.identity = &skip, args.n_identity = 1, args.out = out.mutable_view();
        device_kernels<T>().forward(args);
        out.download();
        CHECK(std::isnan(out.at(0, 0)) && !std::isnan(out.at(0, 1)), "%s %s: NaN", type_of<T>(),
              activation_name(activation));
        if (std::string(activation_name(activation)) != "relu") continue;
        BackwardDataArgs<T> back;
        back.rows = 1, back.columns = 3, back.activation = activation;
        const Rows<T> ones{in.data() + 1, 0};
        back.identity = &ones, back.n_identity = 1, back.saved = in.view(), back.out = out.mutable_view();
        back.columns = 1, back.saved.data = in.data() + 2;
        device_kernels<T>().backward_data(back);
        out.download();
        CHECK(out.at(0, 0) == 0, "%s: relu's derivative at 0 is %g", type_of<T>(), out.at(0, 0));
    }
}

// A row's result does not depend on the rows beside it.
template <class T>
void rows_alone() {
    Sum<T> sum(70, 65, {150, 40}, 0, Fill::reals);
    DeviceMatrix<T> together(70, 65, Fill::zeros), alone(70, 65, Fill::zeros);
    ForwardArgs<T> args;
    args.rows = 70, args.columns = 65, args.sources = sum.sources.data(), args.n_sources = 2;
    args.out = together.mutable_view();
    device_kernels<T>().forward(args);
    for (std::int64_t i = 0; i < 70; ++i) {
        std::vector<Source<T>> sources = sum.sources;
        for (Source<T>& s : sources) s.rows.data += i * s.rows.stride;
        args.rows = 1, args.sources = sources.data(), args.out = {alone.data() + i * alone.stride, alone.stride};
        device_kernels<T>().forward(args);
    }
    together.download(), alone.download();
    CHECK(together.same_bits(alone), "%s: a row's result depends on its batch", type_of<T>());
}

}  // namespace

int main() {
    each_type([](auto type) {
        using T = decltype(type);
        run<T>();
        special_values<T>();
        rows_alone<T>();
    });
    return summary("cuda_products");
}

// Gates, dropout masks and losses, row after row, at every tail and on every instruction set.
#include <vector>

#include "math/activation.h"
#include "math/loss.h"
#include "math/random.h"
#include "matrices.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    static constexpr auto reals = MatrixOf<T>::Fill::reals;
    const KernelTable<T>& k;
    std::string where;
    std::int64_t rows, columns;
    int activation;
    Flush flush;
    MatrixOf<T> h{rows, columns, flush, reals, 1}, t{rows, columns, flush, reals, 2}, x{rows, columns, flush, reals, 3},
        other{rows, columns, flush, reals, 4};

    void check(const char* what, double got, double exact, std::int64_t i, std::int64_t j) {
        CHECK(std::fabs(got - exact) <= 32 * unit<T> * (1 + std::fabs(exact)), "%s %s at %d %d: %g, not %g",
              where.c_str(), what, int(i), int(j), got, exact);
    }

    void gate() {
        MatrixOf<T> out(rows, columns, flush, MatrixOf<T>::Fill::zeros, 5);
        for (bool masked : {false, true}) {
            GateArgs<T> args{rows, columns, h.view(), t.view(), x.view(), {}, out.mutable_view(), {}};
            if (masked) args.mask = other.view();
            k.gate(args);
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const double a = double(t.at(i, j)) * h.at(i, j) + (1 - double(t.at(i, j))) * x.at(i, j);
                    check("gate", out.at(i, j), a * (masked ? other.at(i, j) : 1), i, j);
                }
        }
        CHECK(out.gaps_untouched(), "%s: gaps written", where.c_str());
    }

    // Every element can be the one; a NaN is larger than infinity.
    void largest() {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const T kept = h.at(i, j);
                const double infinity = HUGE_VAL;
                for (double value : {-7.5, infinity, double(NAN)}) {
                    h.at(i, j) = static_cast<T>(value);
                    double got = 0;
                    k.largest({rows, columns, h.view(), &got});
                    CHECK(value != value ? got != got : got == std::fabs(value), "%s: largest at %d %d is %g, not %g",
                          where.c_str(), int(i), int(j), got, std::fabs(value));
                }
                h.at(i, j) = kept;
            }
    }

    void gate_backward() {
        MatrixOf<T> d_h(rows, columns, flush, reals, 1), d_t(rows, columns, flush, reals, 2),
            d_x(rows, columns, flush, reals, 3);
        for (bool argument : {false, true}) {
            if (!argument && activation_needs_argument(activation)) continue;
            GateBackwardArgs<T> args;
            args.rows = rows, args.columns = columns;
            args.gradient = other.view(), args.h = h.view(), args.t = t.view(), args.x = x.view();
            args.activation = activation;
            args.saved = x.view(), args.saved_is_argument = argument;
            args.d_h = d_h.mutable_view(), args.d_t = d_t.mutable_view(), args.d_x = d_x.mutable_view();
            k.gate_backward(args);
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const double g = other.at(i, j), gate = t.at(i, j);
                    double slope = 0;
                    visit_type(activation, Activations{}, [&](auto type) {
                        using G = decltype(type);
                        const double kept = x.at(i, j);
                        slope = G::derivative(argument && !G::needs_argument ? G::forward(kept) : kept);
                    });
                    check("d_h", d_h.at(i, j), g * gate * slope, i, j);
                    check("d_t", d_t.at(i, j), g * (double(h.at(i, j)) - x.at(i, j)) * gate * (1 - gate), i, j);
                    check("d_x", d_x.at(i, j), g * (1 - gate), i, j);
                }
        }
        CHECK(d_h.gaps_untouched() && d_t.gaps_untouched() && d_x.gaps_untouched(), "%s: gaps written", where.c_str());
    }

    // Of whole rows, and of some columns of longer ones.
    void dropout() {
        MatrixOf<T> out(rows, columns, flush, reals, 2);
        const PhiloxKey key{7, 0x201, 3}, step{7, 0, 3};
        for (double p : {1e-300, 0.3, 0.375, 1 - 0x1p-53})  // 0.375 · 2³² words are dropped exactly; one; all
            for (std::int64_t first_row : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1} << 33}) {
                const std::int64_t first_column = first_row % 2 * 3, row_columns = columns + first_row % 2 * 9;
                k.dropout(
                    {rows, columns, first_row, first_column, row_columns, &step, key.purpose, p, out.mutable_view()});
                for (std::int64_t i = 0; i < rows; ++i)
                    for (std::int64_t j = 0; j < columns; ++j) {
                        const auto index = static_cast<std::uint64_t>((first_row + i) * row_columns + first_column + j);
                        CHECK(out.at(i, j) == (uniform(key, index) < p ? T(0) : T(1 / (1 - p))), "%s: mask at %d %d",
                              where.c_str(), int(i), int(j));
                    }
            }
        CHECK(out.gaps_untouched(), "%s: gaps written", where.c_str());
    }

    void losses() {
        MatrixOf<T> gradient(rows, columns, flush, reals, 2), targets(rows, columns, flush, reals, 1);
        Guarded<T> class_weight(columns < 2 ? 2 : columns, flush), sample_weight(rows, flush);
        Guarded<std::int64_t> labels(rows, flush);
        Guarded<double> row_loss(rows, flush);
        const double normaliser = 0.5;
        for (std::int64_t c = 0; c < class_weight.size(); ++c) class_weight[c] = static_cast<T>(1.5 + real());
        for (std::int64_t i = 0; i < rows; ++i) {
            sample_weight[i] = static_cast<T>(1.5 + real());
            labels[i] = static_cast<std::int64_t>(next_noise() % static_cast<std::uint32_t>(columns));
            for (std::int64_t j = 0; j < columns; ++j) targets.at(i, j) = std::fabs(targets.at(i, j));
        }
        for (int loss = 0; loss < loss_count(); ++loss)
            for (int options = 0; options < 8; ++options) {
                LossArgs<T> args;
                args.rows = rows, args.columns = columns, args.loss = loss;
                args.logits = h.view();
                if (options & 1 && loss == find_loss("cross_entropy"))
                    args.labels = labels.data();
                else
                    args.targets = targets.view();
                if (options & 2) args.class_weight = class_weight.data();
                if (options & 4) args.sample_weight = sample_weight.data();
                args.label_smoothing = 0.125, args.delta = 0.25, args.normaliser = &normaliser;
                args.gradient = gradient.mutable_view(), args.row_loss = row_loss.data();
                k.loss(args);
                check_loss(args, gradient);
                check_alone(args, gradient);
            }
        CHECK(gradient.gaps_untouched(), "%s: gaps written", where.c_str());
    }

    // The same bits without the rows beside it.
    void check_alone(const LossArgs<T>& args, MatrixOf<T>& gradient) {
        for (std::int64_t i = 0; i < rows; ++i) {
            MatrixOf<T> slope(1, columns, flush);
            double loss = 0;
            LossArgs<T> one = args;
            one.rows = 1, one.gradient = slope.mutable_view(), one.row_loss = &loss;
            one.logits.data += i * args.logits.stride;
            if (args.labels) one.labels += i;
            if (args.targets.data) one.targets.data += i * args.targets.stride;
            if (args.sample_weight) one.sample_weight += i;
            k.loss(one);
            CHECK(loss == args.row_loss[i], "%s: %s of row %d alone", where.c_str(), loss_name(args.loss), int(i));
            for (std::int64_t j = 0; j < columns; ++j)
                CHECK(slope.at(0, j) == gradient.at(i, j), "%s: slope of %s at %d %d alone", where.c_str(),
                      loss_name(args.loss), int(i), int(j));
        }
    }

    // The row's formula is math/loss.h's, tested against PyTorch; here, that each row is given its own data, and that
    // the gradient is the slope of the loss.
    void check_loss(const LossArgs<T>& args, MatrixOf<T>& gradient) {
        for (std::int64_t i = 0; i < rows; ++i) {
            const double scale = *args.normaliser * (args.sample_weight ? double(args.sample_weight[i]) : 1);
            std::vector<double> z(columns), t(columns), weights;
            for (std::int64_t j = 0; j < columns; ++j) z[j] = h.at(i, j);
            RowTarget<double> target;
            if (args.labels) target.label = args.labels + i;
            for (std::int64_t j = 0; args.targets.data && j < columns; ++j)
                t[j] = args.targets.data[i * args.targets.stride + j];
            if (args.targets.data) target.values = t.data();
            for (std::int64_t c = 0; args.class_weight && c < std::max<std::int64_t>(2, columns); ++c)
                weights.push_back(args.class_weight[c]);
            if (args.class_weight) target.class_weight = weights.data();
            target.label_smoothing = args.label_smoothing, target.delta = args.delta;
            auto value = [&] {
                double loss = 0;
                visit_type(args.loss, Losses{}, [&](auto rule) {
                    const OneRow<double> row{z.data(), columns, target, scale, nullptr};
                    loss = decltype(rule)::loss(row);
                });
                return scale * loss;
            };
            check(loss_name(args.loss), args.row_loss[i], value(), i, 0);
            for (std::int64_t j = 0; j < columns; ++j) {
                const double step = 1e-6, here = z[j];
                z[j] = here + step;
                const double above = value();
                z[j] = here - step;
                const double below = value();
                z[j] = here;
                CHECK(std::fabs((above - below) / (2 * step) - gradient.at(i, j)) <= 1e-5,
                      "%s: gradient of %s at %d %d", where.c_str(), loss_name(args.loss), int(i), int(j));
            }
        }
    }
};

template <class T>
void run(const KernelTable<T>& k, const char* isa) {
    int turn = 0;
    for (std::int64_t rows : {1, 2, 7})
        for (std::int64_t columns : {1, 2, 3, 4, 5, 8, 15, 16, 17, 33})
            for (Flush flush : {Flush::end, Flush::start}) {
                const std::string where =
                    std::string(isa) + " " + std::to_string(rows) + " x " + std::to_string(columns);
                for (int activation = 0; activation < activation_count(); ++activation) {
                    Case<T> one{k, where, rows, columns, activation, flush};
                    one.gate_backward();
                }
                Case<T> one{k, where, rows, columns, turn++ % activation_count(), flush};
                one.gate();
                one.largest();
                one.dropout();
                one.losses();
            }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    return summary("elementwise");
}

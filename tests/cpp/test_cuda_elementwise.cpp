// Gates, dropout masks, losses, packing, and numbers of whole arrays on a CUDA device, against plain loops in double.
#include <algorithm>
#include <utility>

#include "device_matrix.h"
#include "math/activation.h"
#include "math/loss.h"
#include "math/random.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    using C = Compute<T>;
    std::string where;
    std::int64_t rows, columns;
    Gap gap = as_wanted;
    const KernelTable<T>& k = device_kernels<T>();
    DeviceMatrix<T> h{rows, columns, Fill::reals, gap(columns, 1)}, t{rows, columns, Fill::reals, gap(columns, 2)},
        x{rows, columns, Fill::reals, gap(columns, 3)}, g{rows, columns, Fill::reals, gap(columns, 4)};
    DeviceMatrix<C> mask{rows, columns, Fill::reals, gap(columns, 1)};

    template <class U>
    void check(const char* what, DeviceMatrix<U>& got, std::int64_t i, std::int64_t j, double exact) {
        const double allowed = (32 * rounding<C> + rounding<U>)*(1 + std::fabs(exact));
        CHECK(std::fabs(got.at(i, j) - exact) <= allowed, "%s %s at %d %d: %.9g, not %.9g", where.c_str(), what, int(i),
              int(j), got.at(i, j), exact);
    }

    void gate() {
        DeviceMatrix<T> out(rows, columns, Fill::zeros, gap(columns, 1));
        DeviceMatrix<C> wide(rows, columns, Fill::zeros, gap(columns, 2));
        for (bool masked : {false, true}) {
            GateArgs<T> args{rows, columns, h.view(), t.view(), x.view(), {}, out.mutable_view(), wide.mutable_view()};
            if (masked) args.mask = mask.view();
            k.gate(args);
            out.download(), wide.download();
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const double a = t.at(i, j) * h.at(i, j) + (1 - t.at(i, j)) * x.at(i, j);
                    const double exact = a * (masked ? mask.at(i, j) : 1);
                    check("gate", out, i, j, exact);
                    if (!computes_itself<T>) check("wide gate", wide, i, j, exact);
                }
        }
    }

    void gate_backward(int activation) {
        const bool argument = either() || activation_needs_argument(activation);
        DeviceMatrix<T> d_h(rows, columns, Fill::zeros, gap(columns, 1)),
            d_t(rows, columns, Fill::zeros, gap(columns, 2)), d_x(rows, columns, Fill::zeros, gap(columns, 3));
        GateBackwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.gradient = g.view(), args.h = h.view(), args.t = t.view(), args.x = x.view();
        args.activation = activation, args.saved = x.view(), args.saved_is_argument = argument;
        args.d_h = d_h.mutable_view(), args.d_t = d_t.mutable_view(), args.d_x = d_x.mutable_view();
        k.gate_backward(args);
        d_h.download(), d_t.download(), d_x.download();
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const double slope_of = x.at(i, j), gate = t.at(i, j);
                double slope = 0;
                visit_type(activation, Activations{},
                           [&](auto type) { slope = derivative<decltype(type)>(slope_of, argument); });
                check("d_h", d_h, i, j, g.at(i, j) * gate * slope);
                check("d_t", d_t, i, j, g.at(i, j) * (h.at(i, j) - x.at(i, j)) * gate * (1 - gate));
                check("d_x", d_x, i, j, g.at(i, j) * (1 - gate));
            }
    }

    void dropout() {
        const OnDevice<PhiloxKey> key(PhiloxKey{12345678901ull, 99, 7});
        DeviceMatrix<C> out(rows, columns, Fill::zeros, gap(columns, 3));
        const std::int64_t first_column = one_of({0, 0, 4, 3}),
                           row_columns = columns + one_of({0, 5, 8}) + first_column;
        for (double p : {0.0, 0.3, 0.5}) {
            k.dropout({rows, columns, 11, first_column, row_columns, key.data(), 3, p, out.mutable_view()});
            out.download();
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const bool dropped =
                        uniform({12345678901ull, 3, 7},
                                static_cast<std::uint64_t>((11 + i) * row_columns + first_column + j)) < p;
                    CHECK(out(i, j) == (dropped ? C(0) : static_cast<C>(1 / (1 - p))), "%s: mask at %d %d",
                          where.c_str(), int(i), int(j));
                }
        }
    }

    void loss(int kind) {
        const bool labelled = std::string(loss_name(kind)) == "cross_entropy" && either();
        const bool weighted = either(), samples = either();
        DeviceMatrix<C> logits(rows, columns, Fill::reals, gap(columns, 2)),
            targets(rows, columns, Fill::reals, gap(columns, 1));
        DeviceMatrix<C> classes(1, std::max<std::int64_t>(columns, 2), Fill::reals), sample(1, rows, Fill::reals);
        DeviceMatrix<C> unrounded(rows, columns, Fill::zeros, gap(columns, 1));
        DeviceMatrix<double> row_loss(1, rows);
        DeviceMatrix<T> gradient(rows, columns, Fill::zeros, gap(columns, 3));
        std::vector<std::int64_t> labels(static_cast<std::size_t>(rows));
        for (std::int64_t& label : labels) label = next_noise() % static_cast<std::uint32_t>(columns);
        auto* device_labels = static_cast<std::int64_t*>(device().allocate(labels.size() * sizeof labels[0]));
        device().upload(device_labels, labels.data(), labels.size() * sizeof labels[0]);
        const OnDevice<double> normaliser(0.125);
        LossArgs<T> args;
        args.rows = rows, args.columns = columns, args.loss = kind, args.logits = logits.view();
        if (labelled)
            args.labels = device_labels;
        else
            args.targets = targets.view();
        if (weighted) args.class_weight = classes.data();
        if (samples) args.sample_weight = sample.data();
        args.label_smoothing = 0.1, args.delta = 0.5, args.normaliser = normaliser.data();
        args.gradient = gradient.mutable_view(), args.unrounded = unrounded.mutable_view();
        args.row_loss = row_loss.data();
        DeviceMatrix<double> sums(1, (rows + k.loss_rows - 1) / k.loss_rows);
        args.loss_sums = sums.data();
        const OnDevice<double> largest(0.0);
        args.largest = largest.data();
        k.loss(args);
        gradient.download(), row_loss.download(), sums.download();
        double most = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) most = std::max(most, std::fabs(gradient.at(i, j)));
        CHECK(largest.get() == most, "%s: the largest of %s is %g, not %g", where.c_str(), loss_name(kind),
              largest.get(), most);
        for (std::int64_t s = 0; s < sums.columns; ++s) {
            double sum = 0, size = 0;
            for (std::int64_t i = s * k.loss_rows; i < std::min<std::int64_t>(rows, (s + 1) * k.loss_rows); ++i)
                sum += row_loss.at(0, i), size += std::fabs(row_loss.at(0, i));
            CHECK(std::fabs(sums.at(0, s) - sum) <= 64 * 0x1p-53 * size, "%s: sum %d of %s is %.17g, not %.17g",
                  where.c_str(), int(s), loss_name(kind), sums.at(0, s), sum);
        }
        std::vector<double> z(static_cast<std::size_t>(columns)), target(z), slope(z),
            class_weight(static_cast<std::size_t>(classes.columns));
        for (std::int64_t j = 0; j < classes.columns; ++j) class_weight[static_cast<std::size_t>(j)] = classes.at(0, j);
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j)
                z[static_cast<std::size_t>(j)] = logits.at(i, j),
                target[static_cast<std::size_t>(j)] = targets.at(i, j);
            const double scale = 0.125 * (samples ? sample.at(0, i) : 1);
            RowTarget<double> row;
            row.label = labelled ? &labels[static_cast<std::size_t>(i)] : nullptr;
            row.values = labelled ? nullptr : target.data();
            row.class_weight = weighted ? class_weight.data() : nullptr;
            row.label_smoothing = 0.1, row.delta = 0.5;
            double exact = 0;
            visit_type(kind, Losses{}, [&](auto rule) {
                const OneRow<double> one{z.data(), columns, row, scale, slope.data()};
                exact = scale * decltype(rule)::loss(one);
            });
            CHECK(std::fabs(row_loss.at(0, i) - exact) <= 64 * 0x1p-53 * (1 + std::fabs(exact)) * double(columns),
                  "%s: %s of row %d is %.17g, not %.17g", where.c_str(), loss_name(kind), int(i), row_loss.at(0, i),
                  exact);
            for (std::int64_t j = 0; j < columns; ++j)
                check(loss_name(kind), gradient, i, j, slope[static_cast<std::size_t>(j)]);
        }
        device().release(0, device_labels);
    }

    // Nobody has looked at labels that were on the device.
    void label_that_is_no_class() {
        DeviceMatrix<C> logits(1, columns, Fill::reals), unrounded(1, columns);
        DeviceMatrix<T> gradient(1, columns);
        const OnDevice<double> normaliser(1.0), loss(0.0);
        for (std::int64_t label : {std::int64_t{0}, columns - 1, columns, std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
            const OnDevice<std::int64_t> given(label);
            LossArgs<T> args;
            args.rows = 1, args.columns = columns, args.loss = find_loss("cross_entropy");
            args.logits = logits.view(), args.labels = given.data(), args.normaliser = normaliser.data();
            args.gradient = gradient.mutable_view(), args.unrounded = unrounded.mutable_view();
            args.row_loss = loss.data();
            k.loss(args);
            CHECK(std::isnan(loss.get()) == (label < 0 || label >= columns), "%s: the loss of label %lld is %g",
                  where.c_str(), static_cast<long long>(label), loss.get());
        }
    }

    // Every element can be the one; a NaN is larger than infinity; what is larger already stays.
    void largest() {
        double most = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) most = std::max(most, std::fabs(h.at(i, j)));
        for (double begin : {0.0, 1e3}) {
            const OnDevice<double> into(begin);
            k.largest({rows, columns, h.view(), into.data()});
            CHECK(into.get() == std::max(begin, most), "%s: largest is %g", where.c_str(), into.get());
        }
        for (double value : {-7.5, HUGE_VAL, double(NAN)}) {
            const std::int64_t i = next_noise() % rows, j = next_noise() % columns;
            const T kept = h(i, j);
            h(i, j) = stored<T>(value);
            h.upload();
            const OnDevice<double> into(0.0);
            k.largest({rows, columns, h.view(), into.data()});
            const double got = into.get();
            CHECK(value != value ? got != got : got == std::fabs(value), "%s: largest is %g, not %g", where.c_str(),
                  got, std::fabs(value));
            h(i, j) = kept;
            h.upload();
        }
    }

    void packing() {
        DeviceMatrix<C> w(rows, columns, Fill::reals, gap(columns, 2)),
            back(rows, columns, Fill::zeros, gap(columns, 3));
        DeviceMatrix<C> panels(1, packed_size(rows, columns, k.panel), Fill::reals);
        DeviceMatrix<T> operand(1, operand_size(k, rows, columns), Fill::reals);
        DeviceMatrix<T> transposed(1, operand_size(k, columns, rows), Fill::reals);
        k.pack(rows, columns, w.view(), panels.data());
        k.unpack(rows, columns, panels.data(), back.mutable_view());
        k.pack_operand(rows, columns, w.view(), operand.data());
        k.pack_transposed(rows, columns, w.view(), transposed.data());
        panels.download(), back.download(), operand.download(), transposed.download();
        auto same = [&](const char* what, auto& packed, std::int64_t depth, std::int64_t inner, std::int64_t width,
                        bool turned) {
            for (std::int64_t i = 0; i < depth; ++i)
                for (std::int64_t j = 0; j < panel_count(width, k.panel) * k.panel; ++j) {
                    using U = std::decay_t<decltype(packed(0, 0))>;
                    const double exact =
                        i < inner && j < width ? value_of(stored<U>(turned ? w.at(j, i) : w.at(i, j))) : 0;
                    const double got = packed.at(0, (j / k.panel * depth + i) * k.panel + j % k.panel);
                    CHECK(got == exact, "%s: %s at %d %d is %g, not %g", where.c_str(), what, int(i), int(j), got,
                          exact);
                }
        };
        same("parameter", panels, rows, rows, columns, false);
        same("operand", operand, operand_rows<T>(rows), rows, columns, false);
        same("transpose", transposed, operand_rows<T>(columns), columns, rows, true);
        DeviceMatrix<T> narrowed(rows, columns, Fill::zeros, gap(columns, 1));
        DeviceMatrix<C> widened(rows, columns, Fill::zeros, gap(columns, 2));
        const bool measured = either();
        const OnDevice<double> largest(0.0);
        k.narrow(rows, columns, w.view(), narrowed.mutable_view(), measured ? largest.data() : nullptr);
        k.widen(rows, columns, narrowed.view(), widened.mutable_view());
        narrowed.download(), widened.download();
        double most = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                most = std::max(most, std::fabs(narrowed.at(i, j)));
                CHECK(back.at(i, j) == w.at(i, j), "%s: unpacked at %d %d", where.c_str(), int(i), int(j));
                CHECK(narrowed.at(i, j) == value_of(stored<T>(w.at(i, j))), "%s: narrowed", where.c_str());
                CHECK(widened.at(i, j) == narrowed.at(i, j), "%s: widened", where.c_str());
            }
        CHECK(largest.get() == (measured ? most : 0), "%s: narrowed, largest is %g", where.c_str(), largest.get());
    }

    // Rows that begin between boundaries.
    void shifted() {
        DeviceMatrix<C> to(rows, columns, Fill::zeros, gap(columns, 0));
        for (const auto& [from_shift, to_shift] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{1, 1}}) {
            const std::int64_t width = columns - 1;
            k.widen(rows, width, {h.data() + from_shift, h.stride}, {to.data() + to_shift, to.stride});
            const OnDevice<double> into(0.0);
            k.largest({rows, width, {h.data() + from_shift, h.stride}, into.data()});
            to.download();
            double most = 0;
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < width; ++j) {
                    const double exact = h.at(i, j + from_shift);
                    most = std::max(most, std::fabs(exact));
                    CHECK(to.at(i, j + to_shift) == exact, "%s: shifted at %d %d", where.c_str(), int(i), int(j));
                }
            CHECK(into.get() == most, "%s: largest of what is shifted is %g", where.c_str(), into.get());
        }
    }
};

// Arrays from one element to several stretches.
template <class T>
struct Arrays {
    using C = Compute<T>;
    std::int64_t size;
    const KernelTable<T>& k = device_kernels<T>();
    DeviceMatrix<C> gradient{1, size, Fill::reals}, other{1, size, Fill::reals};

    void clip() {
        DeviceMatrix<double> squares(1, 2 * k.square_parts, Fill::reals);
        k.squares({size, gradient.data(), squares.data()});
        k.squares({size, other.data(), squares.data() + k.square_parts});
        double exact = 0;
        for (std::int64_t i = 0; i < size; ++i)
            exact += gradient.at(0, i) * gradient.at(0, i) + other.at(0, i) * other.at(0, i);
        const std::vector<C> before = gradient.host;
        for (double largest : {0.0, 1e9, 0.25}) {
            const OnDevice<double> norm(0.0), factor(0.0);
            k.clip({squares.columns, squares.data(), largest, norm.data(), factor.data()});
            CHECK(std::fabs(norm.get() - std::sqrt(exact)) <= 1e-12 * std::sqrt(exact), "norm is %g", norm.get());
            const double expected = largest == 0.25 ? std::min(1.0, 0.25 / (norm.get() + 1e-6)) : 1;
            CHECK(factor.get() == expected, "factor is %g, not %g", factor.get(), expected);
            k.scale({size, factor.data(), gradient.data()});
            gradient.download();
            for (std::int64_t i = 0; i < size; ++i)
                CHECK(gradient(0, i) == static_cast<C>(value_of(before[static_cast<std::size_t>(i)]) * expected),
                      "scaled");
        }
        squares(0, 0) = NAN;
        squares.upload();
        const OnDevice<double> norm(0.0), factor(0.0);
        k.clip({squares.columns, squares.data(), 1, norm.data(), factor.data()});
        CHECK(std::isnan(norm.get()) && std::isnan(factor.get()), "a norm that is NaN is clipped to %g", factor.get());
    }

    void commit() {
        DeviceMatrix<C> to(1, size);
        for (Outcome outcome : {Outcome{0, 0, 0}, Outcome{0, 1, 1}, Outcome{}}) {
            const OnDevice<Outcome> permission(outcome);
            CommitArgs<T> args;
            args.permission = permission.data();
            for (std::int64_t first = 0, end; first < size; first = end) {
                end = args.count < 3 ? std::min(size, first + args.count) : size;
                args.vectors[args.count++] = {end - first, other.data() + first, to.data() + first};
            }
            k.commit(args);
            to.download();
            for (std::int64_t i = 0; i < size; ++i)
                CHECK(to(0, i) == (permits(&outcome) ? other(0, i) : C(0)), "committed at %d", int(i));
        }
    }

    void overflowed() {
        for (double now : {1.0, HUGE_VAL, double(NAN)})
            for (double before : {1.0, HUGE_VAL}) {
                DeviceMatrix<C> a(1, size, Fill::reals), b(1, size, Fill::reals);
                const std::int64_t at = next_noise() % size;
                a(0, at) = static_cast<C>(before), b(0, at) = static_cast<C>(now);
                a.upload(), b.upload();
                const OnDevice<std::int32_t> found(0);
                k.overflowed({size, a.data(), b.data(), found.data()});
                CHECK(found.get() == (now != 1 && before == 1), "overflowed: %d from %g to %g", found.get(), before,
                      now);
            }
    }

    void conclude() {
        DeviceMatrix<double> row_loss(1, size, Fill::reals);
        double exact = 0, magnitude = 0;
        for (double loss : row_loss.host) exact += loss, magnitude += std::fabs(loss);
        Hyper<C> hyper;
        hyper.lr = C(2);
        const OnDevice<Hyper<C>> rate(hyper);
        const OnDevice<Outcome> outcome(Outcome{});
        const double limit = 1e15 / double(size) / 2;
        for (double a : {1.0, limit, double(NAN)}) {
            const OnDevice<double> largest_a(a), largest_delta(0.75);
            for (bool updates : {true, false}) {
                k.conclude({size, row_loss.data(), size, largest_a.data(), largest_delta.data(),
                            updates ? rate.data() : nullptr, outcome.data()});
                const Outcome got = outcome.get();
                CHECK(std::fabs(got.loss - exact) <= 16 * 0x1p-53 * magnitude && got.finite, "loss is %.17g, not %.17g",
                      got.loss, exact);
                CHECK(got.may_overflow == (updates && std::isnan(a)), "largest %g: %d", a, got.may_overflow);
            }
            const OnDevice<double> twice(2.0);
            k.conclude({size, row_loss.data(), size, largest_a.data(), twice.data(), rate.data(), outcome.data()});
            CHECK(outcome.get().may_overflow == (a != 1), "largest %g", a);
        }
        for (double decay : {0.5, 0.75, 1e16}) {
            hyper.weight_decay = C(decay);
            const OnDevice<Hyper<C>> decaying(hyper);
            const OnDevice<double> small(1.0);
            k.conclude({size, row_loss.data(), size, small.data(), small.data(), decaying.data(), outcome.data()});
            CHECK(outcome.get().may_overflow == (decay > 0.5), "decay %g", decay);
        }
        row_loss(0, size - 1) = NAN;
        row_loss.upload();
        const OnDevice<double> one(1.0);
        k.conclude({size, row_loss.data(), size, one.data(), one.data(), rate.data(), outcome.data()});
        CHECK(!outcome.get().finite && !outcome.get().may_overflow, "a loss that is NaN is finite");
    }
};

std::int64_t no_gap(std::int64_t, std::int64_t) { return 0; }

template <class T>
void run(Gap gap) {
    for (std::int64_t rows : {1, 3, 64, 70})
        for (std::int64_t columns : {1, 5, 64, 67, 68}) {
            const std::string where = std::string(type_of<T>()) + " " + std::to_string(rows) + " x ";
            Case<T> one{where + std::to_string(columns), rows, columns, gap};
            one.gate();
            one.gate_backward(static_cast<int>(next_noise() % static_cast<std::uint32_t>(activation_count())));
            one.dropout();
            one.label_that_is_no_class();
            one.largest();
            one.packing();
            one.shifted();
            for (int kind = 0; kind < loss_count(); ++kind) one.loss(kind);
        }
    // About as many columns as a block of losses has room for.
    for (std::int64_t columns : {10, 15, 16, 20, 21, 31, 32})
        for (int kind = 0; kind < loss_count(); ++kind)
            Case<T>{std::string(type_of<T>()) + " " + std::to_string(columns), 130, columns, gap}.loss(kind);
    for (int activation = 0; activation < activation_count(); ++activation) {
        Case<T> one{std::string(type_of<T>()) + " " + activation_name(activation), 5, 67, gap};
        one.gate_backward(activation);
    }
}

template <class T>
void run_arrays() {
    for (std::int64_t size : {1, 255, 257, 4096, 9000}) {
        Arrays<T> one{size};
        one.clip();
        one.commit();
        one.overflowed();
        one.conclude();
    }
    // More than the blocks take in one turn.
    Arrays<T> many{600001};
    many.clip();
    many.conclude();
}

// More columns than a grid has panels: no GPU launches that.
void nothing_runs_after_a_launch_that_failed() {
    const KernelTable<float>& k = device_kernels<float>();
    DeviceMatrix<float> from(1, 7, Fill::reals), to(1, 7, Fill::zeros);
    CommitArgs<float> commit;
    commit.vectors[commit.count++] = {7, from.data(), to.data()};
    ForwardArgs<float> impossible;
    const Source<float> nothing;
    impossible.sources = &nothing, impossible.n_sources = 1;
    impossible.rows = 1, impossible.columns = std::int64_t{65536} * k.panel;
    k.forward(impossible);
    k.commit(commit);
    CHECK(device().synchronize() != 0, "not reported");
    to.download();
    for (std::int64_t j = 0; j < 7; ++j) CHECK(to.at(0, j) == 0, "committed after a failure");
    k.commit(commit);
    CHECK(device().synchronize() == 0, "%s", device().last_error());
    to.download();
    for (std::int64_t j = 0; j < 7; ++j) CHECK(to.at(0, j) == from.at(0, j), "nothing runs any more");
}

// Chosen rows, of matrices whose elements are neighbours, in rows on boundaries and off them, and of others.
template <class From>
void gather_as(GatherArgs::Type type) {
    constexpr std::int64_t rows = 5, columns = 27;
    for (const auto& [stride, shift] : {std::pair{32, 0}, std::pair{32, 1}, std::pair{29, 0}}) {
        DeviceMatrix<From> from(rows, columns + shift, Fill::reals, stride - columns - shift);
        for (bool transposed : {false, true}) {
            const std::int64_t depth = transposed ? columns : rows, width = transposed ? rows : columns;
            const std::vector<std::int64_t> chosen{depth - 1, 0, 3};
            const auto count = static_cast<std::int64_t>(chosen.size());
            DeviceMatrix<double> to(count, width);
            DeviceMatrix<float> to_float(count, width);
            auto* numbers = static_cast<std::int64_t*>(device().allocate(chosen.size() * sizeof chosen[0]));
            device().upload(numbers, chosen.data(), chosen.size() * sizeof chosen[0]);
            GatherArgs args;
            args.rows = count, args.columns = width, args.from = from.data() + shift, args.from_type = type;
            args.row_stride = transposed ? 1 : stride, args.column_stride = transposed ? stride : 1;
            args.chosen = numbers;
            args.to = to.data(), args.to_type = GatherArgs::f64;
            CHECK(device().gather(&args) == 0, "%s", device().last_error());
            args.to = to_float.data(), args.to_type = GatherArgs::f32;
            CHECK(device().gather(&args) == 0, "%s", device().last_error());
            to.download(), to_float.download();
            for (std::int64_t i = 0; i < count; ++i)
                for (std::int64_t j = 0; j < width; ++j) {
                    const std::int64_t row = chosen[static_cast<std::size_t>(i)];
                    const double exact = transposed ? from.at(j, row + shift) : from.at(row, j + shift);
                    CHECK(to.at(i, j) == exact && to_float(i, j) == static_cast<float>(exact),
                          "gathered from %s, stride %d: %g and %g, not %g", type_of<From>(), stride, to.at(i, j),
                          to_float.at(i, j), exact);
                }
            device().release(0, numbers);
        }
    }
}

// A recording that begins next would take the error for its own, and the step would be made of what was there before.
void gather_tells_of_its_launch() {
    DeviceMatrix<float> from(2, 3, Fill::reals), to(2, 3, Fill::zeros);
    GatherArgs args;
    args.from = from.data(), args.to = to.data();
    args.row_stride = 3, args.column_stride = 1;
    args.columns = 3;
    args.rows = -1000;  // no GPU launches that
    CHECK(device().gather(&args) != 0, "not reported");
    CHECK(device().synchronize() == 0, "reported twice: %s", device().last_error());
    args.rows = 2;
    CHECK(device().gather(&args) == 0, "%s", device().last_error());
    to.download();
    for (std::int64_t j = 0; j < 3; ++j) CHECK(to.at(1, j) == from.at(1, j), "nothing runs any more");
}

}  // namespace

int main() {
    for (Gap gap : {as_wanted, to_boundaries, no_gap}) each_type([gap](auto type) { run<decltype(type)>(gap); });
    each_type([](auto type) { run_arrays<decltype(type)>(); });
    gather_as<float>(GatherArgs::f32), gather_as<double>(GatherArgs::f64), gather_as<bfloat16>(GatherArgs::bf16);
    nothing_runs_after_a_launch_that_failed();
    gather_tells_of_its_launch();
    return summary("cuda_elementwise");
}

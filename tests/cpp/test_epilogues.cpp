// What forward and backward-data do after their sums, on every instruction set and tail: every option, every
// activation, within rounding of plain loops in double. Rows may be cut into tiles anywhere, and gaps between rows stay
// as they are.
#include <vector>

#include "math/activation.h"
#include "matrices.h"

using namespace resnetcore;

namespace {

template <class T>
using Matrix = MatrixOf<T>;

double g(int activation, double z) {
    double a = 0;
    visit_type(activation, Activations{}, [&](auto type) { a = decltype(type)::forward(z); });
    return a;
}
// g′ at the argument z, whatever a network would have kept.
double slope(int activation, double z) {
    double d = 0;
    visit_type(activation, Activations{}, [&](auto type) {
        using G = decltype(type);
        d = G::derivative(G::needs_argument ? z : G::forward(z));
    });
    return d;
}

template <class T>
struct Case {
    static constexpr auto reals = Matrix<T>::Fill::reals;
    const KernelTable<T>& k;
    std::string where;
    int activation;
    bool branch, normalised, masked;
    std::int64_t rows, columns;
    Flush flush;
    Matrix<T> a{rows, 7, flush, reals, 3}, w{7, columns, flush, reals}, first{rows, columns, flush, reals, 5},
        second{rows, columns, flush, reals, 2}, z{rows, columns, flush, reals, 1}, mask{rows, columns, flush, reals, 4},
        branch_mask{rows, columns, flush, reals, 4};
    Matrix<T> bias{1, columns, flush, reals}, center{1, columns, flush, reals}, scale{1, columns, flush, reals},
        shift{1, columns, flush, reals};
    Guarded<T> panels{packed_size(7, columns, k.panel), flush};

    void check(const char* what, double got, double exact, double size, std::int64_t i, std::int64_t j) {
        CHECK(std::fabs(got - exact) <= 64 * unit<T> * size, "%s %s, %s, at %d %d: %g, not %g", where.c_str(), what,
              activation_name(activation), int(i), int(j), got, exact);
    }

    void forward() {
        k.pack(7, columns, w.view(), panels.data());
        Matrix<T> out(rows, columns, flush, Matrix<T>::Fill::zeros, 6), argument(rows, columns, flush, reals, 6);
        Matrix<T> cut(rows, columns, flush, Matrix<T>::Fill::zeros, 6), cut_argument(rows, columns, flush, reals, 6);
        call(0, rows, out, argument);
        for (std::int64_t row = 0, step = 1; row < rows; row += step, ++step)
            call(row, std::min(row + step, rows), cut, cut_argument);
        CHECK(out.same_bits(cut) && argument.same_bits(cut_argument), "%s: tiles change bits", where.c_str());
        CHECK(out.gaps_untouched() && argument.gaps_untouched(), "%s: gaps written", where.c_str());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const double exact = sum(i, j);
                check("argument", argument.at(i, j), exact, 16, i, j);
                // From the kernel's own argument: a rounding at a kink would take the other branch.
                const double here = g(activation, argument.at(i, j)) * (masked ? mask.at(i, j) : 1);
                check("output", out.at(i, j), here, 8, i, j);
            }
        backward(argument, out);
    }

    double sum(std::int64_t i, std::int64_t j) {
        double total = double(bias.at(0, j)) + first.at(i, j) + second.at(i, j);
        for (std::int64_t s = 0; s < 7; ++s) total += double(a.at(i, s)) * w.at(s, j);
        if (!branch) return total;
        double b = z.at(i, j);
        if (normalised) b = (b - center.at(0, j)) * scale.at(0, j) + shift.at(0, j);
        return total + b * (masked ? branch_mask.at(i, j) : 1);
    }

    static Rows<T> from(Matrix<T>& m, std::int64_t row) { return {m.data() + row * m.stride, m.stride}; }
    static MutableRows<T> into(Matrix<T>& m, std::int64_t row) { return {m.data() + row * m.stride, m.stride}; }

    void call(std::int64_t begin, std::int64_t end, Matrix<T>& out, Matrix<T>& argument) {
        const Source<T> source{from(a, begin), panels.data(), 7};
        const Rows<T> identities[] = {from(first, begin), from(second, begin)};
        ForwardArgs<T> args;
        args.rows = end - begin, args.columns = columns;
        args.sources = &source, args.n_sources = 1;
        args.bias = bias.data();
        args.identity = identities, args.n_identity = 2;
        if (branch) args.branch.z = from(z, begin);
        if (branch && normalised)
            args.branch.center = center.data(), args.branch.scale = scale.data(), args.branch.shift = shift.data();
        if (masked) args.mask = from(mask, begin), args.branch.mask = from(branch_mask, begin);
        args.activation = activation;
        args.argument = into(argument, begin);
        args.out = into(out, begin);
        k.forward(args);
    }

    void backward(Matrix<T>& argument, Matrix<T>& out) {
        const bool keeps_argument = activation_needs_argument(activation) || masked;
        Matrix<T>& saved = keeps_argument ? argument : out;
        Matrix<T> d(rows, columns, flush, Matrix<T>::Fill::zeros, 2), delta(rows, 7, flush, reals, 1);
        Guarded<T> transposed(packed_size(7, columns, k.panel), flush);
        Matrix<T> wt(7, columns, flush, reals);  // a consumer's Wᵀ, as its backward-data multiplies with it
        k.pack(7, columns, wt.view(), transposed.data());
        const Source<T> source{delta.view(), transposed.data(), 7};
        const Rows<T> identity = first.view();
        BackwardDataArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = &source, args.n_sources = 1;
        args.identity = &identity, args.n_identity = 1;
        if (masked) args.mask = mask.view();
        args.activation = activation;
        args.saved = saved.view();
        args.saved_is_argument = keeps_argument;
        args.out = d.mutable_view();
        k.backward_data(args);
        CHECK(d.gaps_untouched(), "%s: backward wrote gaps", where.c_str());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                double exact = first.at(i, j);
                for (std::int64_t s = 0; s < 7; ++s) exact += double(delta.at(i, s)) * wt.at(s, j);
                exact *= (masked ? mask.at(i, j) : 1) * slope(activation, argument.at(i, j));
                check("gradient", d.at(i, j), exact, 16, i, j);
            }
        if (masked || activation != find_activation("relu")) return;
        Matrix<T> scaled(rows, columns, flush, Matrix<T>::Fill::zeros, 2);
        args.scale = T(1.3);
        args.out = scaled.mutable_view();
        k.backward_data(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                CHECK(scaled.at(i, j) == T(1.3) * d.at(i, j), "%s: scaled at %d %d", where.c_str(), int(i), int(j));
    }
};

template <class T>
void run(const KernelTable<T>& k, const char* isa) {
    int options = 0;
    for (int activation = 0; activation < activation_count(); ++activation)
        for (std::int64_t columns : {1, 3, 4, 8, 15, 16, 17, 32, 33, 48, 50, 64})
            for (std::int64_t rows : {1, 2, 13, 14, 15, 29}) {
                ++options;
                const std::string where =
                    std::string(isa) + " " + std::to_string(rows) + " x " + std::to_string(columns);
                Case<T> one{k,
                            where,
                            activation,
                            (options & 1) != 0,
                            (options & 2) != 0,
                            (options & 4) != 0,
                            rows,
                            columns,
                            options & 8 ? Flush::start : Flush::end};
                one.forward();
            }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    return summary("epilogues");
}

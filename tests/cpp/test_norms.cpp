// Batch normalisation's column sums and its backward against plain loops in double, at every tail.
#include <vector>

#include "matrices.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    static constexpr auto reals = MatrixOf<T>::Fill::reals;
    const KernelTable<T>& k;
    std::string where;
    std::int64_t rows, columns;
    bool masked;
    Flush flush;
    MatrixOf<T> z{rows, columns, flush, reals, 3}, delta{rows, columns, flush, reals, 2},
        mask{rows, columns, flush, reals, 1};
    MatrixOf<T> mean{1, columns, flush, reals}, inverse{1, columns, flush, reals}, scale{1, columns, flush, reals};
    MatrixOf<T> mean_d{1, columns, flush, reals}, mean_dx{1, columns, flush, reals};

    void check(const char* what, double got, double exact, double size, std::int64_t j) {
        CHECK(std::fabs(got - exact) <= 8 * unit<T> * size, "%s %s at %d: %g, not %g", where.c_str(), what, int(j), got,
              exact);
    }
    double d(std::int64_t i, std::int64_t j) { return double(delta.at(i, j)) * (masked ? mask.at(i, j) : 1); }
    double xhat(std::int64_t i, std::int64_t j) { return (double(z.at(i, j)) - mean.at(0, j)) * inverse.at(0, j); }

    // The chunks by two calls: of the first ones, and of the rest.
    static constexpr std::int64_t chunk = 8;
    template <class Call>
    void by_halves(Call call) {
        const std::int64_t first = rows / 2 / chunk * chunk;
        if (first > 0) call(0, first);
        call(first, rows - first);
    }

    // A mean far from zero costs the deviations no digits.
    void moments() {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) z.at(i, j) += T(1000);
        Guarded<T> partial(2 * columns * ((rows + chunk - 1) / chunk), flush);
        const PartialSums<T> sums{partial.data(), columns, rows, chunk};
        by_halves([&](std::int64_t first, std::int64_t count) {
            k.moments({count, columns, first, {z.data() + first * z.stride, z.stride}, sums});
        });
        for (std::int64_t c = 0; c < sums.chunks(); ++c)
            for (std::int64_t j = 0; j < columns; ++j) {
                const std::int64_t begin = c * chunk, end = begin + sums.rows_of(c);
                const double mean = sums.first(c)[j];
                double exact = 0, m2 = 0;
                for (std::int64_t i = begin; i < end; ++i) exact += z.at(i, j);
                check("mean", mean, exact / static_cast<double>(end - begin), 1000, j);
                // m2 is of deviations from the mean as stored: that is what its chunk is combined by.
                for (std::int64_t i = begin; i < end; ++i) m2 += (z.at(i, j) - mean) * (z.at(i, j) - mean);
                check("squares", sums.second(c)[j], m2, 4 * m2 + 1e-2, j);
            }
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) z.at(i, j) -= T(1000);
    }

    void sums() {
        Guarded<T> partial(2 * columns * ((rows + chunk - 1) / chunk), flush);
        NormSumsArgs<T> args;
        args.columns = columns;
        args.mean = mean.data(), args.inverse_deviation = inverse.data();
        args.sums = {partial.data(), columns, rows, chunk};
        by_halves([&](std::int64_t first, std::int64_t count) {
            args.rows = count, args.first_row = first;
            args.delta = {delta.data() + first * delta.stride, delta.stride};
            args.z = {z.data() + first * z.stride, z.stride};
            if (masked) args.mask = {mask.data() + first * mask.stride, mask.stride};
            k.norm_sums(args);
        });
        for (std::int64_t c = 0; c < args.sums.chunks(); ++c)
            for (std::int64_t j = 0; j < columns; ++j) {
                const std::int64_t begin = c * chunk, end = begin + args.sums.rows_of(c);
                double first = 0, second = 0;
                for (std::int64_t i = begin; i < end; ++i) first += d(i, j), second += d(i, j) * xhat(i, j);
                check("sum", args.sums.first(c)[j], first, static_cast<double>(end - begin), j);
                check("sum of x", args.sums.second(c)[j], second, 4 * static_cast<double>(end - begin), j);
            }
    }

    void backward(bool normalised) {
        MatrixOf<T> out(rows, columns, flush, MatrixOf<T>::Fill::zeros, 5);
        NormBackwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.delta = delta.view();
        if (masked) args.mask = mask.view();
        if (normalised) {
            args.z = z.view();
            args.mean = mean.data(), args.inverse_deviation = inverse.data(), args.scale = scale.data();
            args.mean_d = mean_d.data(), args.mean_dx = mean_dx.data();
        }
        args.out = out.mutable_view();
        k.norm_backward(args);
        CHECK(out.gaps_untouched(), "%s: gaps written", where.c_str());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                double exact = d(i, j);
                if (normalised) exact = scale.at(0, j) * (exact - mean_d.at(0, j) - xhat(i, j) * mean_dx.at(0, j));
                check("backward", out.at(i, j), exact, 8, j);
            }
    }
};

template <class T>
void run(const KernelTable<T>& k, const char* isa) {
    for (Flush flush : {Flush::end, Flush::start})
        for (std::int64_t rows : {1, 2, 8, 9, 64})
            for (std::int64_t columns : {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64})
                for (bool masked : {false, true}) {
                    Case<T> one{k,      std::string(isa) + " " + std::to_string(rows) + " x " + std::to_string(columns),
                                rows,   columns,
                                masked, flush};
                    one.moments();
                    one.sums();
                    one.backward(false);
                    one.backward(true);
                }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    return summary("norms");
}

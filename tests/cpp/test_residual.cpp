// The block as pure functions in every dtype, at every tail and on two threads: integers of few bits must agree to the
// last bit with plain loops, after one rounding; all arrays lie flush against forbidden pages.
#include <string>

#include "check.h"
#include "functional/residual.h"
#include "math/activation.h"
#include "runtime/thread_pool.h"
#include "small_integers.h"

using namespace resnetcore;

namespace {

template <class T>
float stored(float value) {
    T result;
    set(result, value);
    return get(result);
}

template <class T>
struct Case {
    std::string where;
    std::int64_t rows, inner, columns;
    Flush flush;

    Integers<T> a{rows, inner, flush}, w{inner, columns, flush}, skip{rows, columns, flush}, bias{1, columns, flush};
    ResidualArguments<T> arguments{{matrix(a)}, {matrix(w)}, bias.memory.data(),     {matrix(skip)},
                                   rows,        columns,     find_activation("relu")};

    static Matrix<T> matrix(Integers<T>& m) { return {m.memory.data(), m.rows, m.columns, m.columns}; }

    float sum(std::int64_t i, std::int64_t j) {
        float z = bias.at(0, j) + skip.at(i, j);
        for (std::int64_t k = 0; k < inner; ++k) z += a.at(i, k) * w.at(k, j);
        return z;
    }

    void forward() {
        Integers<T> out(rows, columns, flush);
        Integers<Compute<T>> wide(rows, columns, flush);
        residual_forward(arguments, out.mutable_view());
        if constexpr (!computes_itself<T>) residual_forward(arguments, {}, wide.mutable_view());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const float z = sum(i, j), expected = z > 0 ? z : 0;
                CHECK(out.at(i, j) == stored<T>(expected), "%s: a at %d %d", where.c_str(), int(i), int(j));
                CHECK(computes_itself<T> || wide.at(i, j) == expected, "%s: wide at %d %d", where.c_str(), int(i),
                      int(j));
            }
    }

    void backward() {
        Integers<T> grad(rows, columns, flush), out(rows, columns, flush), d_a(rows, inner, flush);
        Integers<T> delta(rows, columns, flush);
        Integers<Compute<T>> d_w(inner, columns, flush), d_bias(1, columns, flush);
        residual_forward(arguments, out.mutable_view());
        residual_backward(arguments, grad.view(), out.view(),
                          {{d_a.mutable_view()}, {d_w.mutable_view()}, d_bias.memory.data(), delta.mutable_view()});
        const auto expected = [&](std::int64_t i, std::int64_t j) { return out.at(i, j) > 0 ? grad.at(i, j) : 0; };
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j)
                CHECK(delta.at(i, j) == expected(i, j), "%s: δ at %d %d", where.c_str(), int(i), int(j));
            for (std::int64_t k = 0; k < inner; ++k) {
                float d = 0;
                for (std::int64_t j = 0; j < columns; ++j) d += expected(i, j) * w.at(k, j);
                CHECK(d_a.at(i, k) == stored<T>(d), "%s: dA at %d %d", where.c_str(), int(i), int(k));
            }
        }
        for (std::int64_t j = 0; j < columns; ++j) {
            float d = 0;
            for (std::int64_t i = 0; i < rows; ++i) d += expected(i, j);
            CHECK(d_bias.at(0, j) == d, "%s: db at %d", where.c_str(), int(j));
            for (std::int64_t k = 0; k < inner; ++k) {
                float dw = 0;
                for (std::int64_t i = 0; i < rows; ++i) dw += a.at(i, k) * expected(i, j);
                CHECK(d_w.at(k, j) == dw, "%s: dW at %d %d", where.c_str(), int(k), int(j));
            }
        }
    }
};

template <class T>
void run(const char* dtype) {
    for (std::int64_t rows : {1, 2, 15, 129})
        for (std::int64_t inner : {1, 2, 7, 32, 33})
            for (std::int64_t columns : {1, 5, 16, 31, 33, 70})
                for (Flush flush : {Flush::end, Flush::start}) {
                    const std::string where = std::string(dtype) + " rows " + std::to_string(rows) + " inner " +
                                              std::to_string(inner) + " columns " + std::to_string(columns);
                    Case<T> c{where, rows, inner, columns, flush};
                    c.forward();
                    c.backward();
                }
    Case<T> large{std::string(dtype) + " on two threads", 300, 90, 100, Flush::end};
    large.forward();
    large.backward();
}

}  // namespace

int main() {
    set_num_threads(2);
    run<float>("float32");
    run<double>("float64");
    run<bfloat16>("bfloat16");
    return summary("residual");
}

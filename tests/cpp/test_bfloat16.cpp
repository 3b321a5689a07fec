// bfloat16 and bfloat16x2 on every instruction set and every tail: integers of few bits, whose sums are exact in any
// order, must agree to the last bit with plain loops; all arrays lie flush against forbidden pages. AMX's kernels are
// among them over a simulated unit, on whatever machine.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/select.h"
#include "math/activation.h"
#include "small_integers.h"

#if defined(RC_SIMULATED_AMX)
namespace resnetcore::amx_simulated {
const KernelTable<bfloat16>* bf16();
const KernelTable<bfloat16x2>* bf16x2();
}  // namespace resnetcore::amx_simulated
#endif
using namespace resnetcore;
using Wide = Integers<float>;

namespace {

void poison(bfloat16& number, std::uint16_t bits) { number.bits = bits; }
void poison(bfloat16x2& number, std::uint16_t bits) { number.low.bits = number.high.bits = bits; }

// Digits that one bfloat16 has no room for.
template <class T, class Matrix>
void lengthen(Matrix& matrix) {
    if constexpr (std::is_same<T, bfloat16x2>::value) matrix.lengthen();
}

template <class T>
struct Case {
    using Narrow = Integers<T>;
    const KernelTable<T>& k;
    std::string where;
    std::int64_t rows, inner, columns;
    Flush flush;

    Wide w{inner, columns, flush};
    const bool in_planes = k.operand_parts == 1;

    Case(const KernelTable<T>& k, std::string where, std::int64_t rows, std::int64_t inner, std::int64_t columns,
         Flush flush)
        : k(k), where(std::move(where)), rows(rows), inner(inner), columns(columns), flush(flush) {
        lengthen<T>(w);
    }

    // Kernels that keep the largest magnitude of their results.
    void check_largest(double largest, Narrow& out, const char* what) {
        if (!k.keeps_largest) return;
        double expected = 0;
        for (std::int64_t i = 0; i < out.rows; ++i)
            for (std::int64_t j = 0; j < out.columns; ++j)
                expected = std::max(expected, std::fabs(double(out.at(i, j))));
        CHECK(largest == expected, "%s: %g is the largest of %s, not %g", where.c_str(), expected, what, largest);
    }
    Narrow matrix(std::int64_t height, std::int64_t width) const { return {height, width, flush, in_planes}; }
    // A product as the kernels make it: in planes the low halves do not meet.
    float product(float x, float y) const {
        const auto low = [](float value) { return to_float(to_bfloat16x2(value).low); };
        return in_planes && std::is_same<T, bfloat16x2>::value ? x * y - low(x) * low(y) : x * y;
    }

    void forward() {
        Narrow a = matrix(rows, inner), b = matrix(rows, 5), skip = matrix(rows, columns), out = matrix(rows, columns);
        lengthen<T>(a);
        Wide v(5, columns, flush), bias(1, columns, flush), wide(rows, columns, flush);
        Guarded<T> panels(operand_size(k, inner, columns), flush), second(operand_size(k, 5, columns), flush);
        k.pack_operand(inner, columns, w.view(), panels.data());
        k.pack_operand(5, columns, v.view(), second.data());
        Source<T> sources[] = {
            {a.view(), panels.data(), inner}, {b.view(), second.data(), 5}, {a.view(), panels.data(), inner}};
        const Rows<T> identity = skip.view();
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = sources, args.n_sources = 3;
        args.bias = bias.memory.data();
        args.identity = &identity, args.n_identity = 1;
        args.activation = find_activation("relu");
        args.out = out.mutable_view(), args.wide = wide.mutable_view();
        double largest = 0;
        args.largest = &largest;
        k.forward(args);
        check_largest(largest, out, "outputs");
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                float z = bias.at(0, j) + skip.at(i, j);
                for (std::int64_t s = 0; s < inner; ++s) z += 2 * product(a.at(i, s), w.at(s, j));
                for (std::int64_t s = 0; s < 5; ++s) z += product(b.at(i, s), v.at(s, j));
                z = z > 0 ? z : 0;
                CHECK(wide.at(i, j) == z, "%s: wide at %d %d", where.c_str(), int(i), int(j));
                CHECK(out.at(i, j) == rounded<T>(z), "%s: out at %d %d", where.c_str(), int(i), int(j));
            }
        // Nothing but bias, skip and activation: where such an epilogue has a loop of its own, the same. And with
        // transposes at hand, along which a panel's last columns may be summed.
        Narrow again = matrix(rows, columns);
        args.out = again.mutable_view(), args.wide = {};
        Guarded<T> across(operand_size(k, columns, inner), flush), second_across(operand_size(k, columns, 5), flush);
        k.pack_transposed(inner, columns, w.view(), across.data());
        k.pack_transposed(5, columns, v.view(), second_across.data());
        sources[0].across = sources[2].across = across.data(), sources[1].across = second_across.data();
        largest = 0;
        k.forward(args);
        check_largest(largest, again, "plain outputs");
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                CHECK(again.at(i, j) == out.at(i, j), "%s: plain out at %d %d", where.c_str(), int(i), int(j));
        Narrow narrowed = matrix(rows, columns);
        largest = 0;
        k.narrow(rows, columns, wide.view(), narrowed.mutable_view(), &largest);
        check_largest(largest, narrowed, "narrowed");
    }

    // Everything else that an epilogue may do: a branch with a norm and a mask, an argument that is kept, a mask.
    void branch() {
        Narrow z = matrix(rows, columns), out = matrix(rows, columns), argument = matrix(rows, columns);
        Wide center(1, columns, flush), scale(1, columns, flush), shift(1, columns, flush), mask(rows, columns, flush),
            branch_mask(rows, columns, flush), wide(rows, columns, flush);
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.branch = {z.view(), center.memory.data(), scale.memory.data(), shift.memory.data(), branch_mask.view()};
        args.activation = find_activation("relu");
        args.mask = mask.view();
        args.argument = argument.mutable_view(), args.out = out.mutable_view(), args.wide = wide.mutable_view();
        k.forward(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const float normal = (z.at(i, j) - center.at(0, j)) * scale.at(0, j) + shift.at(0, j);
                const float sum = normal * branch_mask.at(i, j), a = (sum > 0 ? sum : 0) * mask.at(i, j);
                CHECK(argument.at(i, j) == rounded<T>(sum), "%s: argument at %d %d", where.c_str(), int(i), int(j));
                CHECK(wide.at(i, j) == a, "%s: wide branch at %d %d", where.c_str(), int(i), int(j));
                CHECK(out.at(i, j) == rounded<T>(a), "%s: branch at %d %d", where.c_str(), int(i), int(j));
            }
    }

    void backward_data() {
        Narrow delta = matrix(rows, columns), saved = matrix(rows, inner), out = matrix(rows, inner);
        lengthen<T>(delta);
        Guarded<T> transposed(operand_size(k, columns, inner), flush);
        k.pack_transposed(inner, columns, w.view(), transposed.data());
        Source<T> source{delta.view(), transposed.data(), columns};
        BackwardDataArgs<T> args;
        args.rows = rows, args.columns = inner;
        args.sources = &source, args.n_sources = 1;
        args.activation = find_activation("relu");
        args.saved = saved.view();
        args.out = out.mutable_view();
        double largest = 0;
        args.largest = &largest;
        k.backward_data(args);
        check_largest(largest, out, "gradients");
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t s = 0; s < inner; ++s) {
                float d = 0;
                for (std::int64_t j = 0; j < columns; ++j) d += product(delta.at(i, j), w.at(s, j));
                d = saved.at(i, s) > 0 ? rounded<T>(d) : 0;
                CHECK(out.at(i, s) == d, "%s: data at %d %d", where.c_str(), int(i), int(s));
            }
        Guarded<T> across(operand_size(k, inner, columns), flush);
        k.pack_operand(inner, columns, w.view(), across.data());
        source.across = across.data();
        Narrow again = matrix(rows, inner);
        args.out = again.mutable_view();
        k.backward_data(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t s = 0; s < inner; ++s)
                CHECK(again.at(i, s) == out.at(i, s), "%s: data across at %d %d", where.c_str(), int(i), int(s));
        Wide mask(rows, inner, flush);
        Narrow masked = matrix(rows, inner);
        args.mask = mask.view(), args.scale = 2;
        args.sources = nullptr, args.n_sources = 0;
        const Rows<T> identity = saved.view();
        args.identity = &identity, args.n_identity = 1;
        args.out = masked.mutable_view();
        k.backward_data(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t s = 0; s < inner; ++s) {
                const float kept = saved.at(i, s) > 0 ? rounded<T>(2 * saved.at(i, s) * mask.at(i, s)) : 0;
                CHECK(masked.at(i, s) == kept, "%s: masked data at %d %d", where.c_str(), int(i), int(s));
            }
    }

    void backward_weights() {
        Narrow a = matrix(rows, inner), delta = matrix(rows, columns);
        lengthen<T>(a);
        lengthen<T>(delta);
        Wide bias(1, columns, flush), start(1, columns, flush), after(inner, columns, flush);
        for (std::int64_t j = 0; j < columns; ++j) start.memory[j] = bias.memory[j];
        const std::int64_t size = packed_size(inner, columns, k.panel), panels = panel_count(columns, k.panel);
        const std::int64_t straight = operand_size(k, inner, columns);
        const std::int64_t turned = operand_size(k, columns, inner);
        Guarded<float> value(size, flush), sums(inner * k.panel * std::min(panels, panels_of_sums), flush);
        Guarded<T> operand(straight, flush), transposed(turned, flush), expected(straight, flush),
            expected_transposed(turned, flush), room(k.stretch_room(rows, inner), flush);
        k.pack(inner, columns, w.view(), value.data());
        k.pack_operand(inner, columns, w.view(), operand.data());
        k.pack_transposed(inner, columns, w.view(), transposed.data());
        BackwardWeightsArgs<T> args;
        args.rows = rows, args.inner = inner, args.columns = columns;
        args.last_panel = panels;
        args.a = a.view(), args.delta = delta.view();
        args.has_bias = true;
        args.weight.value = value.data(), args.operands = {operand.data(), transposed.data()};
        args.bias.value = bias.memory.data();
        args.optimizer = find_optimizer("sgd");
        Hyper<float> hyper;
        hyper.lr = 0.5f;
        args.weight_hyper = args.bias_hyper = &hyper;
        args.sums = sums.data(), args.room = room.data();
        k.backward_weights(args);
        k.unpack(inner, columns, value.data(), after.mutable_view());
        for (std::int64_t j = 0; j < columns; ++j) {
            float db = 0;
            for (std::int64_t i = 0; i < rows; ++i) db += delta.at(i, j);
            CHECK(bias.at(0, j) == start.at(0, j) - 0.5f * db, "%s: bias at %d", where.c_str(), int(j));
            for (std::int64_t s = 0; s < inner; ++s) {
                float g = 0;
                for (std::int64_t i = 0; i < rows; ++i) g += product(a.at(i, s), delta.at(i, j));
                CHECK(after.at(s, j) == w.at(s, j) - 0.5f * g, "%s: weight at %d %d", where.c_str(), int(s), int(j));
            }
        }
        k.pack_operand(inner, columns, after.view(), expected.data());
        k.pack_transposed(inner, columns, after.view(), expected_transposed.data());
        CHECK(std::memcmp(expected.data(), operand.data(), straight * sizeof(T)) == 0, "%s: operand", where.c_str());
        CHECK(std::memcmp(expected_transposed.data(), transposed.data(), turned * sizeof(T)) == 0, "%s: transposed",
              where.c_str());
    }
};

template <class T>
void run(const KernelTable<T>& k, const std::string& isa) {
    auto all = [&](std::int64_t rows, std::int64_t inner, std::int64_t columns) {
        for (Flush flush : {Flush::end, Flush::start}) {
            const std::string where =
                isa + " " + std::to_string(rows) + " x " + std::to_string(inner) + " x " + std::to_string(columns);
            Case<T> one{k, where, rows, inner, columns, flush};
            one.forward();
            one.branch();
            one.backward_data();
            one.backward_weights();
        }
    };
    for (std::int64_t rows : {1, 2, 5, 14, 15, 33})
        for (std::int64_t inner : {1, 2, 7, 16, 17, 33, 64})
            for (std::int64_t columns : {1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 65}) all(rows, inner, columns);
    for (std::int64_t rows : {16, 17, 31, 32, 48, 64})
        for (std::int64_t inner : {1, 15, 31, 32, 47, 49, 63, 95, 96})
            for (std::int64_t columns : {5, 32, 63, 96}) all(rows, inner, columns);
    for (std::int64_t rows : {127, 128, 130, 300})
        for (std::int64_t inner : {31, 96})
            for (std::int64_t columns : {5, 96}) all(rows, inner, columns);
    // More rows than a matrix unit lays out together, and more panels than wait meanwhile; chunks of a panel, of which
    // shorter sums have some in bfloat16x2, whose longer sums are not exact.
    all(700, 33, 161);
    if (std::is_same<T, bfloat16>::value) all(265, 800, 33);
    // Blocks of rows, columns and terms that are made floats together, and what they leave.
    for (std::int64_t rows : {47, 49, 97})
        for (std::int64_t inner : {255, 256, 257, 513})
            for (std::int64_t columns : {64, 65, 129}) all(rows, inner, columns);
}

// What is beyond a row, in A or in the panels, must not be met even by a zero: it may be infinite, or not a number.
template <class T>
void strangers(const KernelTable<T>& k, const std::string& isa, std::int64_t columns) {
    using Narrow = Integers<T>;
    constexpr std::int64_t rows = 19, stride = 40;
    for (std::int64_t inner = 1; inner < stride; ++inner) {
        Wide w(inner, columns, Flush::end), out(rows, columns, Flush::end);
        Narrow a(rows, stride, Flush::end, k.operand_parts == 1);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t s = inner; s < stride; ++s) {
                T stranger;
                poison(stranger, s % 2 ? 0x7f80 : 0x7fc0);
                a.store(i, s, stranger);
            }
        Guarded<T> panels(operand_size(k, inner, columns), Flush::end),
            across(operand_size(k, columns, inner), Flush::end);
        k.pack_operand(inner, columns, w.view(), panels.data());
        k.pack_transposed(inner, columns, w.view(), across.data());
        const Source<T> source{a.view(), panels.data(), inner, across.data()};
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = &source, args.n_sources = 1;
        args.activation = find_activation("identity");
        args.wide = out.mutable_view();
        k.forward(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                float z = 0;
                for (std::int64_t s = 0; s < inner; ++s) z += a.at(i, s) * w.at(s, j);
                CHECK(out.at(i, j) == z, "%s: %d terms give %g", isa.c_str(), int(inner), double(out.at(i, j)));
            }
    }
}

// Rounding errors do not grow with the length of a sum, whose terms here have no sign to cancel by.
template <class T>
void long_sums(const KernelTable<T>& k, const std::string& isa, std::int64_t inner, std::int64_t columns) {
    using Narrow = Integers<T>;
    constexpr std::int64_t rows = 3;
    Wide w(inner, columns, Flush::end), out(rows, columns, Flush::end);
    Narrow a(rows, inner, Flush::end, k.operand_parts == 1);
    for (std::int64_t i = 0; i < w.memory.size(); ++i) w.memory[i] = rounded<T>(1 + 0.0625f * small_integer());
    a.fill([] { return 1 + 0.0625f * small_integer(); });
    Guarded<T> panels(operand_size(k, inner, columns), Flush::end), across(operand_size(k, columns, inner), Flush::end);
    k.pack_operand(inner, columns, w.view(), panels.data());
    k.pack_transposed(inner, columns, w.view(), across.data());
    const Source<T> source{a.view(), panels.data(), inner, across.data()};
    ForwardArgs<T> args;
    args.rows = rows, args.columns = columns;
    args.sources = &source, args.n_sources = 1;
    args.activation = find_activation("identity");
    args.wide = out.mutable_view();
    k.forward(args);
    double error = 0, norm = 0;
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) {
            double z = 0;
            for (std::int64_t s = 0; s < inner; ++s) z += double(a.at(i, s)) * w.at(s, j);
            error += (out.at(i, j) - z) * (out.at(i, j) - z), norm += z * z;
        }
    CHECK(std::sqrt(error / norm) < 2e-6, "%s: a sum of %d terms is %g off", isa.c_str(), int(inner),
          std::sqrt(error / norm));
}

// Every rounding that a float can need, from the largest, some of which overflow, to the smallest normal ones.
template <class T>
void rounding(const KernelTable<T>& k, const std::string& isa) {
    Integers<T> got(1, 2, Flush::end, k.operand_parts == 1);
    for (std::uint32_t upper = 0x7f7f; upper >= 0x0080; upper -= 7)
        for (std::uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
            const std::uint32_t bits = upper << 16 | lower;
            float x[2];
            std::memcpy(x, &bits, sizeof bits);
            x[1] = -x[0];
            T expected;
            k.narrow(1, 2, {x, 2}, got.mutable_view(), nullptr);
            for (int i = 0; i < 2; ++i) {
                set(expected, x[i]);
                const T stored = got.stored(0, i);
                CHECK(std::memcmp(&stored, &expected, sizeof expected) == 0, "%s: %g is rounded to %g", isa.c_str(),
                      double(x[i]), double(get(stored)));
            }
        }
}

// What overflows is infinite, not infinity and a rest: in whole vectors and in what they leave.
template <class T>
void overflow(const KernelTable<T>& k, const std::string& isa) {
    constexpr std::int64_t rows = 9, columns = 45;
    Integers<T> skip(rows, columns, Flush::end, k.operand_parts == 1),
        out(rows, columns, Flush::end, k.operand_parts == 1);
    Wide bias(1, columns, Flush::end);
    skip.fill([] { return 3e38f; });
    bias.fill([] { return 3e38f; });
    const Rows<T> identity = skip.view();
    ForwardArgs<T> args;
    args.rows = rows, args.columns = columns;
    args.bias = bias.memory.data();
    args.identity = &identity, args.n_identity = 1;
    args.activation = find_activation("relu");
    args.out = out.mutable_view();
    k.forward(args);
    T infinite;
    set(infinite, HUGE_VALF);
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) {
            const T stored = out.stored(i, j);
            CHECK(std::memcmp(&stored, &infinite, sizeof stored) == 0, "%s: %g at %d %d", isa.c_str(),
                  double(get(stored)), int(i), int(j));
        }
}

// ReLU's derivative is a choice: gradients pass where what was saved is not ≤ 0, so also where it is not a number.
template <class T>
void choices(const KernelTable<T>& k, const std::string& isa) {
    constexpr std::int64_t rows = 9, columns = 45;
    Integers<T> gradient(rows, columns, Flush::end, k.operand_parts == 1),
        saved(rows, columns, Flush::end, k.operand_parts == 1), out(rows, columns, Flush::end, k.operand_parts == 1);
    gradient.fill([] { return 3.0f; });
    const float some[] = {0.0f, -0.0f, 1.0f, -1.0f, HUGE_VALF, -HUGE_VALF, NAN, -NAN, 1e-38f, -1e-38f, 1e-40f, -1e-40f};
    constexpr std::int64_t count = sizeof some / sizeof *some;
    std::int64_t next = 0;
    saved.fill([&] { return some[next++ % count]; });
    const Rows<T> identity = gradient.view();
    BackwardDataArgs<T> args;
    args.rows = rows, args.columns = columns;
    args.identity = &identity, args.n_identity = 1;
    args.activation = find_activation("relu");
    args.saved = saved.view();
    args.out = out.mutable_view();
    k.backward_data(args);
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) {
            const float at = saved.at(i, j), expected = at <= 0 ? 0.0f : 3.0f;
            CHECK(out.at(i, j) == expected, "%s: %g where %g was saved", isa.c_str(), double(out.at(i, j)), double(at));
        }
}

template <class T>
void all(const KernelTable<T>& k, const std::string& isa) {
    run(k, isa);
    overflow(k, isa);
    choices(k, isa);
    for (std::int64_t columns : {7, 1}) strangers(k, isa, columns);
    long_sums(k, isa, 100'000, 5);
    long_sums(k, isa, 8'192, 1);
    rounding(k, isa);
}

// The bits of the simulated unit are those of the real one, also where sums round and denormals are taken for zero.
template <class T>
void simulation(const KernelTable<T>& real, const KernelTable<T>& simulated, const std::string& isa) {
    constexpr std::int64_t rows = 40, inner = 70, columns = 45;
    const auto number = [] {
        const std::uint32_t noise = next_noise(), exponent = noise >> 28 ? 50 + (noise >> 8) % 136 : 0;
        const std::uint32_t bits = (noise & 0x80000000u) | exponent << 23 | next_noise() >> 9;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    };
    Integers<T> a(rows, inner, Flush::end, real.operand_parts == 1);
    Wide w(inner, columns, Flush::end), first(rows, columns, Flush::end), second(rows, columns, Flush::end);
    a.fill(number);
    for (std::int64_t i = 0; i < w.memory.size(); ++i) w.memory[i] = number();
    for (const KernelTable<T>* k : {&real, &simulated}) {
        Guarded<T> panels(operand_size(*k, inner, columns), Flush::end);
        k->pack_operand(inner, columns, w.view(), panels.data());
        const Source<T> source{a.view(), panels.data(), inner};
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = &source, args.n_sources = 1;
        args.activation = find_activation("identity");
        args.wide = (k == &real ? first : second).mutable_view();
        k->forward(args);
    }
    for (std::int64_t i = 0; i < first.memory.size(); ++i)
        CHECK(std::memcmp(&first.memory[i], &second.memory[i], sizeof(float)) == 0, "%s: %a is simulated as %a",
              isa.c_str(), double(first.memory[i]), double(second.memory[i]));
}

}  // namespace

// All instruction sets, or those that are named.
int main(int count, char** names) {
    const auto wanted = [&](const std::string& name) {
        return count == 1 || std::find(names + 1, names + count, name) != names + count;
    };
    for (const Isa& isa : known_isas()) {
        if (!wanted(isa.name)) continue;
        if (!isa.compiled || !isa.supported) {
            std::printf("skipped %s: %s\n", isa.name.c_str(), isa.compiled ? "this CPU lacks it" : "not compiled");
            continue;
        }
        all(*isa.bf16, isa.name);
        if (isa.bf16x2) all(*isa.bf16x2, isa.name + " x 2");
#if defined(RC_SIMULATED_AMX)
        if (isa.multiplies_tiles) {
            simulation(*isa.bf16, *amx_simulated::bf16(), isa.name);
            simulation(*isa.bf16x2, *amx_simulated::bf16x2(), isa.name + " x 2");
        }
#endif
    }
#if defined(RC_SIMULATED_AMX)
    if (wanted("amx_simulated")) {
        all(*amx_simulated::bf16(), "avx512_amx, simulated");
        all(*amx_simulated::bf16x2(), "avx512_amx x 2, simulated");
    }
#endif
    return summary("bfloat16");
}

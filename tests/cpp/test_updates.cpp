// A weight gradient and its update. Every way to it gives the same bits: the optimizer on the panel or on a gradient
// that was kept, all panels in one call or in several, all rows in one call or stretch by stretch. The optimizers'
// arithmetic is that of math/optimizer.h in double, within a few roundings; padding stays zero.
#include <algorithm>
#include <vector>

#include "hyper.h"
#include "math/optimizer.h"
#include "matrices.h"

using namespace resnetcore;

namespace {

// A weight, its transposed copy, its optimizer's states, and the bias with its own.
template <class T>
struct Weight {
    Weight(const KernelTable<T>& k, std::int64_t inner, std::int64_t columns, Flush flush)
        : value(packed_size(inner, columns, k.panel), flush),
          first(value.size(), flush),
          second(value.size(), flush),
          transposed(packed_size(columns, inner, k.panel), flush),
          bias(columns, flush),
          bias_first(columns, flush),
          bias_second(columns, flush) {}
    Slot<T> slot() { return {value.data(), {first.data(), second.data()}}; }
    Slot<T> bias_slot() { return {bias.data(), {bias_first.data(), bias_second.data()}}; }
    std::vector<Guarded<T>*> all() { return {&value, &first, &second, &transposed, &bias, &bias_first, &bias_second}; }
    void copy(Weight& other) {
        for (std::size_t i = 0; i < all().size(); ++i)
            std::copy_n(other.all()[i]->data(), all()[i]->size(), all()[i]->data());
    }
    bool same_bits(Weight& other) {
        for (std::size_t i = 0; i < all().size(); ++i)
            if (std::memcmp(all()[i]->data(), other.all()[i]->data(), all()[i]->size() * sizeof(T)) != 0) return false;
        return true;
    }
    Guarded<T> value, first, second, transposed, bias, bias_first, bias_second;
};

template <class T>
struct Case {
    const KernelTable<T>& k;
    std::string where;
    std::int64_t rows, inner, columns;
    int optimizer;
    bool nesterov;
    Flush flush;
    MatrixOf<T> a{rows, inner, flush, MatrixOf<T>::Fill::reals, 3},
        delta{rows, columns, flush, MatrixOf<T>::Fill::reals, 2};
    const Hyper<T> numbers = hyper<T>(nesterov);
    Weight<T> start{k, inner, columns, flush};
    Guarded<T> sums{packed_size(inner, columns, k.panel), flush}, room{k.stretch_room(rows, inner), flush};

    void run() {
        MatrixOf<T> w(inner, columns, flush, MatrixOf<T>::Fill::reals), positive(inner, columns, flush);
        k.pack(inner, columns, w.view(), start.value.data());
        k.pack_transposed(inner, columns, w.view(), start.transposed.data());
        for (std::int64_t i = 0; i < inner; ++i)
            for (std::int64_t j = 0; j < columns; ++j) positive.at(i, j) = static_cast<T>(std::fabs(real()));
        k.pack(inner, columns, positive.view(), start.second.data());
        k.pack(inner, columns, w.view(), start.first.data());
        for (std::int64_t j = 0; j < columns; ++j)
            start.bias[j] = static_cast<T>(real()), start.bias_first[j] = static_cast<T>(real()),
            start.bias_second[j] = static_cast<T>(std::fabs(real()));

        Weight<T> fused(k, inner, columns, flush), by_panels(k, inner, columns, flush), kept(k, inner, columns, flush);
        for (Weight<T>* weight : {&fused, &by_panels, &kept}) weight->copy(start);
        const std::int64_t panels = panel_count(columns, k.panel);
        update(fused, 0, panels);
        for (std::int64_t p = panels - 1; p >= 0; --p) update(by_panels, p, p + 1);
        Guarded<T> gradient(start.value.size(), flush), bias_gradient(columns, flush);
        by_stretches(gradient, bias_gradient);
        update_kept(kept, gradient, bias_gradient);
        CHECK(fused.same_bits(by_panels), "%s: panels change bits", where.c_str());
        CHECK(fused.same_bits(kept), "%s: a kept gradient changes bits", where.c_str());
        check_values(fused, gradient, bias_gradient, w);
    }

    BackwardWeightsArgs<T> args(std::int64_t begin, std::int64_t end) {
        BackwardWeightsArgs<T> args;
        args.rows = end - begin, args.inner = inner, args.columns = columns;
        args.last_panel = panel_count(columns, k.panel);
        args.a = {a.data() + begin * a.stride, a.stride},
        args.delta = {delta.data() + begin * delta.stride, delta.stride};
        args.has_bias = true;
        return args;
    }
    void update(Weight<T>& weight, std::int64_t first, std::int64_t last) {
        BackwardWeightsArgs<T> one = args(0, rows);
        one.first_panel = first, one.last_panel = last;
        one.weight = weight.slot(), one.bias = weight.bias_slot();
        one.operands.transposed = weight.transposed.data();
        one.optimizer = optimizer;
        one.weight_hyper = one.bias_hyper = &numbers;
        one.sums = sums.data(), one.room = room.data();
        k.backward_weights(one);
    }
    void by_stretches(Guarded<T>& gradient, Guarded<T>& bias_gradient) {
        for (std::int64_t begin = 0; begin < rows; begin += gradient_stretch) {
            BackwardWeightsArgs<T> one = args(begin, std::min(begin + gradient_stretch, rows));
            one.gradient = gradient.data(), one.bias_gradient = bias_gradient.data();
            one.accumulate = begin > 0, one.room = room.data();
            k.backward_weights(one);
        }
    }
    void update_kept(Weight<T>& weight, Guarded<T>& gradient, Guarded<T>& bias_gradient) {
        UpdateArgs<T> whole;
        whole.inner = inner, whole.columns = columns;
        whole.last_panel = panel_count(columns, k.panel);
        whole.gradient = gradient.data();
        whole.weight = weight.slot(), whole.operands.transposed = weight.transposed.data();
        whole.optimizer = optimizer, whole.hyper = &numbers;
        k.update(whole);
        // The bias as two vectors.
        UpdateVectorsArgs<T> vectors;
        vectors.optimizer = optimizer, vectors.count = 2;
        for (int v = 0; v < 2; ++v) {
            const std::int64_t first = v * (columns / 3);
            UpdatedVector<T>& vector = vectors.vectors[v];
            vector.size = v == 0 ? columns / 3 : columns - first;
            vector.gradient = bias_gradient.data() + first, vector.slot = weight.bias_slot(), vector.hyper = &numbers;
            vector.slot.value += first;
            for (T*& state : vector.slot.state) state += first;
        }
        k.update_vectors(vectors);
    }

    void check_values(Weight<T>& after, Guarded<T>& gradient, Guarded<T>& bias_gradient, MatrixOf<T>& w) {
        MatrixOf<T> g(inner, columns, flush), out(inner, columns, flush);
        k.unpack(inner, columns, gradient.data(), g.mutable_view());
        k.unpack(inner, columns, after.value.data(), out.mutable_view());
        for (std::int64_t s = 0; s < inner; ++s)
            for (std::int64_t j = 0; j < columns; ++j) {
                double exact = 0, size = 0;
                for (std::int64_t i = 0; i < rows; ++i) {
                    exact += double(a.at(i, s)) * delta.at(i, j);
                    size += std::fabs(double(a.at(i, s)) * delta.at(i, j));
                }
                CHECK(std::fabs(g.at(s, j) - exact) <= 16 * unit<T> * size, "%s: dW at %d %d", where.c_str(), int(s),
                      int(j));
            }
        for (std::int64_t j = 0; j < columns; ++j) {
            double exact = 0, size = 0;
            for (std::int64_t i = 0; i < rows; ++i) exact += delta.at(i, j), size += std::fabs(delta.at(i, j));
            CHECK(std::fabs(bias_gradient[j] - exact) <= 16 * unit<T> * size, "%s: db at %d", where.c_str(), int(j));
            check_rule(after.bias[j], after.bias_first[j], after.bias_second[j], start.bias[j], start.bias_first[j],
                       start.bias_second[j], bias_gradient[j]);
        }
        for (std::int64_t i = 0; i < gradient.size(); ++i)
            check_rule(after.value[i], after.first[i], after.second[i], start.value[i], start.first[i], start.second[i],
                       gradient[i]);
        Guarded<T> transposed(start.transposed.size(), flush);
        k.pack_transposed(inner, columns, out.view(), transposed.data());
        CHECK(std::memcmp(transposed.data(), after.transposed.data(), transposed.size() * sizeof(T)) == 0,
              "%s: the transposed copy", where.c_str());
        (void)w;
    }

    void check_rule(double value, double first, double second, double w, double m, double v, double g) {
        double expected = w;
        visit_type(optimizer, Optimizers{},
                   [&](auto rule) { expected = decltype(rule)::apply(w, g, m, v, widened(hyper<T>(nesterov))); });
        const double size = std::fabs(w) + std::fabs(w - expected) + std::fabs(g);
        CHECK(std::fabs(value - expected) <= 4 * unit<T> * size, "%s: %g, not %g", where.c_str(), value, expected);
        CHECK(std::fabs(first - m) <= 4 * unit<T> * (std::fabs(m) + std::fabs(g) + std::fabs(w)), "%s: state",
              where.c_str());
        CHECK(std::fabs(second - v) <= 4 * unit<T> * (std::fabs(v) + g * g + w * w), "%s: state", where.c_str());
    }
};

template <class T>
void run(const KernelTable<T>& k, const char* isa) {
    int turn = 0;
    for (int optimizer = 0; optimizer < optimizer_count(); ++optimizer)
        for (std::int64_t rows : {1, 5, 128, 129, 300})
            for (std::int64_t columns : {1, 7, 16, 17, 32, 33, 50, 64, 70}) {
                ++turn;
                const std::int64_t wide = turn % 4 == 0 ? 60 : 0;  // several stretches are laid out, one is not
                const std::int64_t inner = 1 + (rows * 5 + columns * 3) % 41 + wide;
                const std::string where = std::string(isa) + " " + optimizer_name(optimizer) + " rows " +
                                          std::to_string(rows) + " inner " + std::to_string(inner) + " columns " +
                                          std::to_string(columns);
                Case<T>{k,       where,     rows,          inner,
                        columns, optimizer, turn % 2 == 1, turn % 3 == 0 ? Flush::start : Flush::end}
                    .run();
            }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    return summary("updates");
}

// Weight gradients and updates on a CUDA device: against plain loops in double, and every way to them the same bits.
// What is not permitted changes nothing; padding stays zero; the operands are those of the new weights.
#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "device_matrix.h"
#include "hyper.h"
#include "math/optimizer.h"

using namespace resnetcore;

namespace {

// A weight with its states and operands, and its bias.
template <class T>
struct Weight {
    using C = Compute<T>;
    static constexpr int arrays = 3;
    const KernelTable<T>& k = device_kernels<T>();
    std::int64_t inner, columns, packed = packed_size(inner, columns, k.panel);
    DeviceMatrix<C> value{1, packed}, first{1, packed}, second{1, packed};
    DeviceMatrix<C> bias{1, columns}, bias_first{1, columns}, bias_second{1, columns};
    DeviceMatrix<T> panels{1, operand_size(k, inner, columns)};
    DeviceMatrix<T> transposed{1, operand_size(k, columns, inner)};

    Weight(std::int64_t inner, std::int64_t columns) : inner(inner), columns(columns) {}
    // From row-major values; second moments are not negative.
    void fill(std::uint32_t seed) {
        noise = seed;
        for (DeviceMatrix<C>* array : {&value, &first, &second}) {
            DeviceMatrix<C> w(inner, columns, Fill::reals, 2);
            if (array == &second)
                for (C& x : w.host) x = std::fabs(x);
            w.upload();
            k.pack(inner, columns, w.view(), array->data());
            if (array != &value) continue;
            if (!computes_itself<T>) k.pack_operand(inner, columns, w.view(), panels.data());
            k.pack_transposed(inner, columns, w.view(), transposed.data());
        }
        for (DeviceMatrix<C>* array : {&bias, &bias_first, &bias_second}) {
            for (C& x : array->host) x = static_cast<C>(array == &bias_second ? std::fabs(real()) : real());
            array->upload();
        }
        download();
    }
    void download() {
        for (DeviceMatrix<C>* array : {&value, &first, &second, &bias, &bias_first, &bias_second}) array->download();
        panels.download(), transposed.download();
    }
    bool same_bits(Weight& other) {
        return value.same_bits(other.value) && first.same_bits(other.first) && second.same_bits(other.second) &&
               bias.same_bits(other.bias) && bias_first.same_bits(other.bias_first) &&
               bias_second.same_bits(other.bias_second) && panels.same_bits(other.panels) &&
               transposed.same_bits(other.transposed);
    }
    Slot<C> slot() { return {value.data(), {first.data(), second.data()}}; }
    Slot<C> bias_slot() { return {bias.data(), {bias_first.data(), bias_second.data()}}; }
    Operands<T> operands() { return {computes_itself<T> ? nullptr : panels.data(), transposed.data()}; }
    double at(DeviceMatrix<C>& array, std::int64_t k_row, std::int64_t j) {
        return array.at(0, (j / k.panel * inner + k_row) * k.panel + j % k.panel);
    }
    void check_padding_and_operands(const char* where) {
        for (DeviceMatrix<C>* array : {&value, &first, &second})
            for (std::int64_t i = 0; i < inner; ++i)
                for (std::int64_t j = columns; j < panel_count(columns, k.panel) * k.panel; ++j)
                    CHECK(at(*array, i, j) == 0, "%s: padding at %d %d is %g", where, int(i), int(j), at(*array, i, j));
        DeviceMatrix<C> w(inner, columns);
        k.unpack(inner, columns, value.data(), w.mutable_view());
        DeviceMatrix<T> exact_panels(1, panels.columns), exact_transposed(1, transposed.columns);
        if (!computes_itself<T>) k.pack_operand(inner, columns, w.view(), exact_panels.data());
        k.pack_transposed(inner, columns, w.view(), exact_transposed.data());
        exact_panels.download(), exact_transposed.download();
        CHECK(panels.same_bits(exact_panels), "%s: the operand is not the weight's", where);
        CHECK(transposed.same_bits(exact_transposed), "%s: the transpose is not the weight's", where);
    }
};

template <class T>
struct Case {
    using C = Compute<T>;
    std::string where;
    std::int64_t rows, inner, columns;
    int optimizer;
    bool nesterov;
    Fill fill;
    Gap gap;
    const KernelTable<T>& k = device_kernels<T>();
    DeviceMatrix<T> a{rows, inner, fill, gap(inner, 3)}, delta{rows, columns, fill, gap(columns, 1)};
    OnDevice<Hyper<C>> weight_hyper{hyper<C>(nesterov)}, bias_hyper{hyper<C>(!nesterov)};
    DeviceMatrix<C> gradient{1, packed_size(inner, columns, k.panel)}, bias_gradient{1, columns};

    bool is_divided() const { return rows > 1000; }

    BackwardWeightsArgs<T> args(std::int64_t first_row, std::int64_t last_row) {
        BackwardWeightsArgs<T> args;
        args.rows = last_row - first_row, args.inner = inner, args.columns = columns;
        args.last_panel = panel_count(columns, k.panel);
        args.a = {a.data() + first_row * a.stride, a.stride};
        args.delta = {delta.data() + first_row * delta.stride, delta.stride};
        args.has_bias = true;
        return args;
    }
    void keep() {
        k.backward_weights(keeping());
        gradient.download(), bias_gradient.download();
        // In calls of as many rows as are summed by themselves, or a multiple, the same.
        constexpr std::int64_t together = 512;
        DeviceMatrix<C> other(1, gradient.columns, Fill::reals), other_bias(1, columns, Fill::reals);
        for (std::int64_t first = 0; first < rows; first += together) {
            BackwardWeightsArgs<T> part = args(first, std::min(rows, first + together));
            part.gradient = other.data(), part.bias_gradient = other_bias.data(), part.accumulate = first > 0;
            k.backward_weights(part);
        }
        other.download(), other_bias.download();
        // Where the batch is divided, parts are summed apart, and of biases shares where W has several tiles of rows.
        CHECK(is_divided() || (gradient.same_bits(other) && (inner > 128 || bias_gradient.same_bits(other_bias))),
              "%s: stretches change bits", where.c_str());
        for (std::int64_t i = 0; i < inner; ++i)
            for (std::int64_t j = 0; j < panel_count(columns, k.panel) * k.panel; ++j) {
                double exact = 0, size = 0;
                for (std::int64_t r = 0; r < rows && j < columns; ++r) {
                    const double term = a.at(r, i) * delta.at(r, j);
                    exact += term, size += std::fabs(term);
                }
                const double got = gradient.at(0, (j / k.panel * inner + i) * k.panel + j % k.panel);
                CHECK(std::fabs(got - exact) <= (fill == Fill::integers ? 0 : product_error<T> * size),
                      "%s: gradient at %d %d is %g, not %g", where.c_str(), int(i), int(j), got, exact);
            }
        for (std::int64_t j = 0; j < columns; ++j) {
            double exact = 0, size = 0;
            for (std::int64_t r = 0; r < rows; ++r) exact += delta.at(r, j), size += std::fabs(delta.at(r, j));
            CHECK(std::fabs(bias_gradient.at(0, j) - exact) <= (fill == Fill::integers ? 0 : 64 * 0x1p-24 * size),
                  "%s: bias gradient at %d is %g, not %g", where.c_str(), int(j), bias_gradient.at(0, j), exact);
        }
    }

    BackwardWeightsArgs<T> keeping() {
        BackwardWeightsArgs<T> args = this->args(0, rows);
        args.gradient = gradient.data(), args.bias_gradient = bias_gradient.data();
        return args;
    }
    BackwardWeightsArgs<T> updating(Weight<T>& weight, const Outcome* permission) {
        BackwardWeightsArgs<T> args = this->args(0, rows);
        args.weight = weight.slot(), args.operands = weight.operands(), args.bias = weight.bias_slot();
        args.optimizer = optimizer, args.weight_hyper = weight_hyper.data(), args.bias_hyper = bias_hyper.data();
        args.permission = permission;
        return args;
    }
    void fused(Weight<T>& weight, std::int64_t first_panel, std::int64_t last_panel, const Outcome* permission) {
        BackwardWeightsArgs<T> args = updating(weight, permission);
        args.first_panel = first_panel, args.last_panel = last_panel;
        k.backward_weights(args);
    }
    void from_kept(Weight<T>& weight, const Outcome* permission) {
        UpdateArgs<T> args;
        args.inner = inner, args.columns = columns, args.last_panel = panel_count(columns, k.panel);
        args.gradient = gradient.data(), args.weight = weight.slot(), args.operands = weight.operands();
        args.optimizer = optimizer, args.hyper = weight_hyper.data(), args.permission = permission;
        k.update(args);
        // The bias as several vectors, as unequal as may be.
        UpdateVectorsArgs<T> vectors;
        vectors.optimizer = optimizer, vectors.permission = permission;
        for (std::int64_t first = 0, end; first < columns; first = end) {
            end = vectors.count < 2 ? std::min(columns, first + vectors.count) : columns;
            UpdatedVector<T>& vector = vectors.vectors[vectors.count++];
            vector.size = end - first, vector.gradient = bias_gradient.data() + first;
            vector.slot = weight.bias_slot(), vector.hyper = bias_hyper.data();
            vector.slot.value += first;
            for (C*& state : vector.slot.state) state += first;
        }
        k.update_vectors(vectors);
    }

    // The optimizer's own arithmetic in double, from the gradient as it was kept.
    void check_element(const char* what, const Hyper<C>& h, double g, const double (&before)[3],
                       const double (&after)[3]) {
        double state[2] = {before[1], before[2]}, value = 0;
        int states = 0;
        visit_type(optimizer, Optimizers{}, [&](auto rule) {
            value = decltype(rule)::apply(before[0], g, state[0], state[1], widened(h));
            states = decltype(rule)::states;
        });
        const double exact[3] = {value, state[0], state[1]}, unit = rounding<C>;
        for (int i = 0; i <= states; ++i)
            CHECK(std::fabs(after[i] - exact[i]) <= 16 * unit * (1 + std::fabs(exact[i]) + std::fabs(before[i])),
                  "%s: %s, array %d is %.9g, not %.9g", where.c_str(), what, i, after[i], exact[i]);
    }

    void run() {
        keep();
        const std::int64_t panels = panel_count(columns, k.panel);
        const std::uint32_t seed = next_noise();
        Weight<T> before(inner, columns), weight(inner, columns), by_panels(inner, columns), kept(inner, columns);
        for (Weight<T>* w : {&before, &weight, &by_panels, &kept}) w->fill(seed);
        for (Outcome outcome : {Outcome{0, 0, 0}, Outcome{0, 1, 1}}) {
            const OnDevice<Outcome> refused(outcome);
            fused(weight, 0, panels, refused.data());
            from_kept(weight, refused.data());
            weight.download();
            CHECK(weight.same_bits(before), "%s: changed without permission", where.c_str());
        }
        const OnDevice<Outcome> permitted(Outcome{});
        fused(weight, 0, panels, permitted.data());
        for (std::int64_t p = panels - 1; p >= 0; --p) fused(by_panels, p, p + 1, nullptr);
        from_kept(kept, permitted.data());
        weight.download(), by_panels.download(), kept.download();
        CHECK(is_divided() || weight.same_bits(by_panels), "%s: panels change bits", where.c_str());
        CHECK(weight.same_bits(kept), "%s: a kept gradient changes bits", where.c_str());
        weight.check_padding_and_operands(where.c_str());
        for (std::int64_t i = 0; i < inner; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                check_element(
                    "weight", hyper<C>(nesterov), weight.at(gradient, i, j),
                    {before.at(before.value, i, j), before.at(before.first, i, j), before.at(before.second, i, j)},
                    {weight.at(weight.value, i, j), weight.at(weight.first, i, j), weight.at(weight.second, i, j)});
        for (std::int64_t j = 0; j < columns; ++j)
            check_element("bias", hyper<C>(!nesterov), bias_gradient.at(0, j),
                          {before.bias.at(0, j), before.bias_first.at(0, j), before.bias_second.at(0, j)},
                          {weight.bias.at(0, j), weight.bias_first.at(0, j), weight.bias_second.at(0, j)});
    }
};

template <class T>
void run(Gap gap) {
    constexpr int turns = 28, divided = 8;
    for (int turn = 0; turn < turns + divided; ++turn) {
        // More rows than tiles: the emulated GPU has three multiprocessors.
        const bool is_long = turn >= turns;
        const std::int64_t rows = is_long ? one_of({1500, 1931}) : one_of({1, 5, 31, 127, 128, 129, 520}),
                           inner = is_long ? one_of({1, 13, 100, 300}) : one_of({1, 3, 63, 64, 65, 100, 200});
        const std::int64_t columns = is_long ? one_of({1, 40, 129}) : one_of({1, 7, 64, 65, 129});
        const int optimizer = turn % optimizer_count();
        Case<T> one{std::string(type_of<T>()) + " " + std::to_string(rows) + " x " + std::to_string(inner) + " x " +
                        std::to_string(columns) + " " + optimizer_name(optimizer),
                    rows,
                    inner,
                    columns,
                    optimizer,
                    turn / 4 % 2 == 1,
                    turn % 3 == 0 ? Fill::integers : Fill::reals,
                    gap};
        one.run();
    }
    // What is not finite in A stays out of the padding, where it would be multiplied by zeros.
    Case<T> one{std::string(type_of<T>()) + " with infinity", 5, 3, 7, 0, false, Fill::reals, gap};
    one.a(2, 1) = stored<T>(HUGE_VAL);
    one.a.upload();
    Weight<T> weight(3, 7);
    weight.fill(1);
    one.fused(weight, 0, 1, nullptr);
    weight.download();
    for (std::int64_t j = 7; j < 64; ++j) CHECK(weight.at(weight.value, 1, j) == 0, "%s: padding", one.where.c_str());
}

// Several calls in one leave what each leaves alone: bit for bit, as sums of integers do not depend on how the batch is
// divided. Some are of other paths.
template <class T>
void several_at_once(Gap gap, int n, std::int64_t rows) {
    using C = Compute<T>;
    std::vector<std::unique_ptr<Case<T>>> cases;
    std::vector<std::unique_ptr<Weight<T>>> together, alone;
    std::vector<BackwardWeightsArgs<T>> keep, update;
    std::vector<std::unique_ptr<DeviceMatrix<C>>> gradients, biases;
    for (int i = 0; i < n; ++i) {
        const std::int64_t inner = one_of({1, 64, 130}), columns = one_of({1, 10, 64});
        cases.push_back(
            std::unique_ptr<Case<T>>(new Case<T>{std::to_string(i), rows, inner, columns, i % optimizer_count(), false,
                                                 Fill::integers, i % 5 == 4 ? Gap(as_wanted) : gap}));
        for (auto* weights : {&together, &alone}) {
            weights->push_back(std::make_unique<Weight<T>>(inner, columns));
            weights->back()->fill(static_cast<std::uint32_t>(i));
        }
        Case<T>& one = *cases.back();
        gradients.push_back(std::make_unique<DeviceMatrix<C>>(1, one.gradient.columns, Fill::reals));
        biases.push_back(std::make_unique<DeviceMatrix<C>>(1, columns, Fill::reals));
        keep.push_back(one.keeping()), update.push_back(one.updating(*together.back(), nullptr));
        keep.back().gradient = gradients.back()->data(), keep.back().bias_gradient = biases.back()->data();
        // Some have no bias.
        keep.back().has_bias = update.back().has_bias = i % 3 > 0;
    }
    device_kernels<T>().backward_all_weights(keep.data(), n);
    device_kernels<T>().backward_all_weights(update.data(), n);
    for (std::size_t i = 0; i < cases.size(); ++i) {
        Case<T>& one = *cases[i];
        const bool has_bias = keep[i].has_bias;
        one.k.backward_weights(one.keeping());
        one.k.backward_weights(one.updating(*alone[i], nullptr));
        one.gradient.download(), one.bias_gradient.download(), gradients[i]->download(), biases[i]->download();
        together[i]->download(), alone[i]->download();
        CHECK(gradients[i]->same_bits(one.gradient), "gradient of call %d", int(i));
        CHECK(biases[i]->same_bits(one.bias_gradient) == has_bias, "bias of call %d", int(i));
        if (!has_bias)
            for (auto member : {&Weight<T>::bias, &Weight<T>::bias_first, &Weight<T>::bias_second})
                (*alone[i].*member).host = (*together[i].*member).host;
        CHECK(together[i]->same_bits(*alone[i]), "weight of call %d", int(i));
    }
}

// What one call leaves for its next launch no other thread's call writes over.
void threads_share_a_device() {
    constexpr int calls = 300;
    struct Work {
        DeviceMatrix<float> a{40, 9, Fill::reals}, delta{40, 70, Fill::reals};
        std::vector<std::unique_ptr<DeviceMatrix<float>>> gradients, biases;
        void call(int i) {
            BackwardWeightsArgs<float> args;
            args.rows = 40, args.inner = 9, args.columns = 70, args.last_panel = 2;
            args.a = a.view(), args.delta = delta.view(), args.has_bias = true;
            args.gradient = gradients[static_cast<std::size_t>(i)]->data();
            args.bias_gradient = biases[static_cast<std::size_t>(i)]->data();
            device_kernels<float>().backward_weights(args);
        }
    };
    Work works[2];
    for (Work& work : works)
        for (int i = 0; i <= calls; ++i) {
            work.gradients.push_back(
                std::make_unique<DeviceMatrix<float>>(1, packed_size(9, 70, device_kernels<float>().panel)));
            work.biases.push_back(std::make_unique<DeviceMatrix<float>>(1, 70));
        }
    for (Work& work : works) work.call(calls);  // alone
    std::vector<std::thread> threads;
    std::atomic<int> waiting{2};
    for (Work& work : works)
        threads.emplace_back([&work, &waiting] {
            CudaPlace before;
            device().make_current(0, &before);
            for (--waiting; waiting > 0;) std::this_thread::yield();
            for (int i = 0; i < calls; ++i) work.call(i);
            device().restore(&before);
        });
    for (std::thread& thread : threads) thread.join();
    for (Work& work : works) {
        work.gradients[calls]->download(), work.biases[calls]->download();
        for (int i = 0; i < calls; ++i) {
            auto &gradient = *work.gradients[static_cast<std::size_t>(i)],
                 &bias = *work.biases[static_cast<std::size_t>(i)];
            gradient.download(), bias.download();
            CHECK(gradient.same_bits(*work.gradients[calls]) && bias.same_bits(*work.biases[calls]),
                  "call %d has another thread's sums", i);
        }
    }
}

}  // namespace

int main() {
    threads_share_a_device();
    const auto all = [](auto type, Gap gap) {
        run<decltype(type)>(gap);
        several_at_once<decltype(type)>(gap, 35, 12);   // more than one launch takes
        several_at_once<decltype(type)>(gap, 3, 1931);  // divided
    };
    each_type([&](auto type) { all(type, as_wanted); });
    for (const char* path : {"ampere", "hopper"})
        if (device().choose_path(0, path) == 0) all(bfloat16(), to_boundaries);
    return summary("cuda_updates");
}

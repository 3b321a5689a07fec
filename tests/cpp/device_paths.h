// Paths in bfloat16 that are faster than the simple one: against plain loops in double, and bit for bit against the
// simple path where both add in the same order.
#pragma once

#include <algorithm>
#include <utility>

#include "device_products.h"

// Of the emulation: blocks that had dynamic shared memory, which those of the simple path have not.
extern "C" long resnetcore_emulated_shared_blocks();

namespace resnetcore {

// Its name, and whether blocks of it ran since that was asked last.
struct FastPath {
    const char* name;
    bool (*ran)();
};

inline bool ran_with_shared_memory() {
    static long before = 0;
    device().synchronize();
    const long now = resnetcore_emulated_shared_blocks();
    return std::exchange(before, now) != now;
}

inline void choose(const char* path) { CHECK(device().choose_path(0, path) == 0, "%s", device().last_error()); }

inline void sums_of_every_shape(const FastPath& path) {
    const std::vector<std::vector<std::int64_t>> inners = {
        {64}, {1}, {128, 64}, {530}, {17, 3}, {33, 0, 70}, {256}, {}, {200}, std::vector<std::int64_t>(11, 5)};
    for (int turn = 0; turn < 90; ++turn) {
        const Fill fill = turn % 3 == 0 ? Fill::integers : Fill::reals;
        const int activation = fill == Fill::integers ? turn / 3 % 2 : turn % activation_count();
        const std::int64_t rows = one_of({1, 5, 64, 65, 127, 128, 129, 300}),
                           columns = one_of({1, 7, 64, 65, 128, 200});
        const std::vector<std::int64_t>& terms = inners[static_cast<std::size_t>(turn) % inners.size()];
        const int skips = int(one_of({0, 0, 1, 2, 12}));
        // Where only A begins on boundaries, the epilogue goes element by element.
        const Gap gap = turn % 4 == 3 ? Gap([](std::int64_t width, std::int64_t wanted) {
            return wanted == 3 ? to_boundaries(width, wanted) : wanted;
        })
                                      : to_boundaries;
        Case<bfloat16> one{std::to_string(turn) + ": " + std::to_string(rows) + " x " + std::to_string(columns) +
                               " from " + std::to_string(terms.size()) + " of " +
                               std::to_string(terms.empty() ? 0 : terms[0]) + ", " + std::to_string(skips) +
                               " skips, " + activation_name(activation),
                           Sum<bfloat16>(rows, columns, terms, skips, fill, gap), activation, fill == Fill::integers};
        one.forward();
        // Without a product, a few skips are added by no kernel of products.
        CHECK(path.ran() == (!terms.empty() || skips > 8), "%s: another path", one.where.c_str());
        one.backward();
        CHECK(path.ran(), "%s: another path", one.where.c_str());
    }
}

inline ForwardArgs<bfloat16> plain(const Sum<bfloat16>& sum, DeviceMatrix<bfloat16>& out) {
    ForwardArgs<bfloat16> args;
    args.rows = sum.rows, args.columns = sum.columns;
    args.sources = sum.sources.data(), args.n_sources = int(sum.sources.size());
    args.out = out.mutable_view();
    return args;
}

inline void both_paths_agree(const FastPath& path) {
    Sum<bfloat16> sum(200, 136, {640, 512}, 0, Fill::reals, to_boundaries);
    DeviceMatrix<bfloat16> wide(200, 136), simple(200, 136);
    device_kernels<bfloat16>().forward(plain(sum, wide));
    CHECK(path.ran(), "another path");
    choose("simple");
    device_kernels<bfloat16>().forward(plain(sum, simple));
    CHECK(!path.ran(), "another path");
    choose(path.name);
    wide.download(), simple.download();
    CHECK(wide.same_bits(simple), "the paths add in different orders");
}

// What nearly every layer has may be finished in ways of its own. Zeros of both signs, infinities and NaN are among all
// that it reads. `check` is called after each kernel of the path.
template <class Check>
void usual_epilogue_has_the_simple_paths_bits(const FastPath& path, int turn, std::int64_t rows, std::int64_t columns,
                                              const std::vector<std::int64_t>& terms, Check check) {
    const double odd[] = {-0.0, 0.0, INFINITY, -INFINITY, NAN, 1e-39};
    const auto strew = [&](auto& matrix) {
        using T = std::decay_t<decltype(matrix.host[0])>;
        for (std::int64_t i = 0; i < matrix.rows; ++i)
            for (std::int64_t j = 0; j < matrix.columns; ++j)
                if (next_noise() >> 28 == 0) matrix(i, j) = stored<T>(odd[next_noise() % 6]);
        matrix.upload();
    };
    // Rows that are not there have a bias, too: sometimes what is there is smaller, as its skips take the bias back.
    const bool takes_back = turn % 6 == 0, has_skip = turn % 2 == 0, has_bias = takes_back || either();
    Sum<bfloat16> sum(rows, columns, terms, has_skip ? 1 : 0, Fill::reals, to_boundaries);
    DeviceMatrix<float> bias(1, columns, Fill::reals);
    DeviceMatrix<bfloat16> saved(rows, columns, Fill::reals, to_boundaries(columns, 0));
    if (takes_back) {
        for (float& one : bias.host) one = 64;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) (*sum.identity[0])(i, j) = stored<bfloat16>(-64);
        bias.upload(), sum.identity[0]->upload();
    } else {
        if (has_skip) strew(*sum.identity[0]);
        strew(bias);
    }
    strew(saved);
    const auto compare = [&](const char* what, auto args, auto kernel) {
        DeviceMatrix<bfloat16> wide(rows, columns, Fill::zeros, to_boundaries(columns, 9)),
            simple(rows, columns, Fill::zeros, to_boundaries(columns, 9));
        OnDevice<double> of_wide(0), of_simple(0);
        args.rows = rows, args.columns = columns, args.activation = find_activation(either() ? "relu" : "identity");
        args.sources = sum.sources.data(), args.n_sources = int(sum.sources.size());
        args.identity = sum.skips.data(), args.n_identity = int(sum.skips.size());
        args.out = wide.mutable_view(), args.largest = of_wide.data();
        kernel(args);
        const bool is_product = !terms.empty() || !std::is_same<decltype(args), ForwardArgs<bfloat16>>::value;
        CHECK(path.ran() == is_product, "%d: another path", turn);
        check();
        choose("simple");
        args.out = simple.mutable_view(), args.largest = of_simple.data();
        kernel(args);
        CHECK(!path.ran(), "another path");
        choose(path.name);
        wide.download(), simple.download();
        const double most = of_wide.get(), expected = of_simple.get();
        CHECK(most == expected || (most != most && expected != expected), "%d: the largest %s is %g, not %g", turn,
              what, most, expected);
        CHECK(wide.same_bits(simple), "%d: %s of %d x %d, %d skips", turn, what, int(rows), int(columns), has_skip);
    };
    ForwardArgs<bfloat16> forward;
    if (has_bias) forward.bias = bias.data();
    compare("output", forward, device_kernels<bfloat16>().forward);
    BackwardDataArgs<bfloat16> data;
    data.saved = saved.view(), data.saved_is_argument = either();
    compare("data", data, device_kernels<bfloat16>().backward_data);
}
// Uncut, of positive terms, which all cuts make smaller: within the bound of float32 results of bfloat16.
inline void a_thousand_terms_are_near(const FastPath& path) {
    const std::int64_t rows = 70, columns = 64, terms = 1024;
    Sum<bfloat16> sum(rows, columns, {terms}, 0, Fill::reals, to_boundaries);
    for (bfloat16& one : sum.a[0]->host) one.bits &= 0x7fff;
    for (float& one : sum.w[0]->host) one = std::fabs(one);
    sum.a[0]->upload(), sum.w[0]->upload();
    device_kernels<bfloat16>().pack_operand(terms, columns, sum.w[0]->view(), sum.panels[0]->data());
    for (const char* name : {"simple", path.name}) {
        choose(name);
        DeviceMatrix<float> wide(rows, columns);
        ForwardArgs<bfloat16> args;
        args.rows = rows, args.columns = columns, args.activation = find_activation("identity");
        args.sources = sum.sources.data(), args.n_sources = 1, args.wide = wide.mutable_view();
        device_kernels<bfloat16>().forward(args);
        CHECK(path.ran() == (std::strcmp(name, "simple") != 0), "another path");
        wide.download();
        double error = 0, norm = 0, size = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const double exact = sum.at(i, j, size), off = wide.at(i, j) - exact;
                error += off * off, norm += exact * exact;
            }
        CHECK(std::sqrt(error / norm) <= 2e-6, "%s: %g", name, std::sqrt(error / norm));
    }
}

inline void both_paths_have_the_same_gradients(const FastPath& path, std::int64_t rows, std::int64_t inner,
                                               std::int64_t columns) {
    const std::int64_t panel = device_kernels<bfloat16>().panel, packed = packed_size(inner, columns, panel);
    DeviceMatrix<bfloat16> a(rows, inner, Fill::reals, to_boundaries(inner, 0)),
        delta(rows, columns, Fill::reals, to_boundaries(columns, 4));
    DeviceMatrix<float> wide(1, packed, Fill::reals), simple(1, packed);
    DeviceMatrix<float> wide_bias(1, columns, Fill::reals), simple_bias(1, columns);
    const std::vector<float> before = wide_bias.host;
    simple.host = wide.host, simple_bias.host = wide_bias.host;
    simple.upload(), simple_bias.upload();
    BackwardWeightsArgs<bfloat16> args;
    args.rows = rows, args.inner = inner, args.columns = columns, args.first_panel = 1;
    args.last_panel = std::min<std::int64_t>(4, panel_count(columns, panel));
    args.a = a.view(), args.delta = delta.view(), args.gradient = wide.data(), args.accumulate = true;
    args.has_bias = true, args.bias_gradient = wide_bias.data();
    device_kernels<bfloat16>().backward_weights(args);
    CHECK(path.ran(), "another path");
    choose("simple");
    args.gradient = simple.data(), args.bias_gradient = simple_bias.data();
    device_kernels<bfloat16>().backward_weights(args);
    CHECK(!path.ran(), "another path");
    choose(path.name);
    wide.download(), simple.download(), wide_bias.download(), simple_bias.download();
    CHECK(wide.same_bits(simple), "%d x %d: the paths add in different orders, or touch other panels", int(rows),
          int(inner));
    CHECK(wide_bias.same_bits(simple_bias), "%d x %d: the paths sum columns in different orders", int(rows),
          int(inner));
    for (std::int64_t j = 0; j < columns; ++j) {
        double exact = before[static_cast<std::size_t>(j)], size = std::fabs(exact);
        const bool is_asked_for = j >= panel && j < args.last_panel * panel;
        for (std::int64_t r = 0; is_asked_for && r < rows; ++r)
            exact += delta.at(r, j), size += std::fabs(delta.at(r, j));
        CHECK(std::fabs(wide_bias.at(0, j) - exact) <= (is_asked_for ? 64 * 0x1p-24 * size : 0),
              "%d x %d: bias gradient at %d is %g, not %g", int(rows), int(inner), int(j), wide_bias.at(0, j), exact);
    }
}

inline void rows_alone(const FastPath& path) {
    Sum<bfloat16> sum(131, 72, {150, 40}, 0, Fill::reals, to_boundaries);
    DeviceMatrix<bfloat16> together(131, 72), alone(131, 72);
    ForwardArgs<bfloat16> args = plain(sum, together);
    device_kernels<bfloat16>().forward(args);
    for (std::int64_t i = 0; i < 131; i += 13) {
        std::vector<Source<bfloat16>> sources = sum.sources;
        for (Source<bfloat16>& s : sources) s.rows.data += i * s.rows.stride;
        args.rows = 1, args.sources = sources.data(), args.out = {alone.data() + i * alone.stride, alone.stride};
        device_kernels<bfloat16>().forward(args);
        CHECK(path.ran(), "a row alone takes another path");
    }
    together.download(), alone.download();
    for (std::int64_t i = 0; i < 131; i += 13)
        for (std::int64_t j = 0; j < 72; ++j)
            CHECK(together.at(i, j) == alone.at(i, j), "row %d depends on its batch", int(i));
}

}  // namespace resnetcore

// Hopper's path on its emulation, against plain loops in double, and bit for bit against the simple path where both add
// in the same order; what it does not take, the simple path does.
#include <optional>

#include "device_products.h"

using namespace resnetcore;

// Of the emulation: blocks that had dynamic shared memory, which those of no other path have.
extern "C" long resnetcore_emulated_hopper_blocks();
// Of those, boxes that were copied to global memory, as tiles of 256 columns alone are.
extern "C" long resnetcore_emulated_boxes_stored();

namespace {

// Whether blocks of Hopper's path ran since it was asked last.
bool ran_on_hopper() {
    static long before = 0;
    device().synchronize();
    const long now = resnetcore_emulated_hopper_blocks();
    return std::exchange(before, now) != now;
}

// Whether tiles of 256 columns were among them.
bool ran_broad() {
    static long before = 0;
    device().synchronize();
    const long now = resnetcore_emulated_boxes_stored();
    return std::exchange(before, now) != now;
}

void choose(const char* path) { CHECK(device().choose_path(0, path) == 0, "%s", device().last_error()); }

void sums_of_every_shape() {
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
        CHECK(ran_on_hopper() == (!terms.empty() || skips > 8), "%s: another path", one.where.c_str());
        one.backward();
        CHECK(ran_on_hopper(), "%s: another path", one.where.c_str());
    }
}

ForwardArgs<bfloat16> plain(const Sum<bfloat16>& sum, DeviceMatrix<bfloat16>& out) {
    ForwardArgs<bfloat16> args;
    args.rows = sum.rows, args.columns = sum.columns;
    args.sources = sum.sources.data(), args.n_sources = int(sum.sources.size());
    args.out = out.mutable_view();
    return args;
}

void both_paths_agree() {
    Sum<bfloat16> sum(200, 136, {640, 512}, 0, Fill::reals, to_boundaries);
    DeviceMatrix<bfloat16> wide(200, 136), simple(200, 136);
    device_kernels<bfloat16>().forward(plain(sum, wide));
    CHECK(ran_on_hopper(), "another path");
    choose("simple");
    device_kernels<bfloat16>().forward(plain(sum, simple));
    CHECK(!ran_on_hopper(), "another path");
    choose("hopper");
    wide.download(), simple.download();
    CHECK(wide.same_bits(simple), "the paths add in different orders");
}

// What nearly every layer has is finished in ways of its own. Zeros of both signs, infinities and NaN are among all
// that it reads.
void usual_epilogue_has_the_simple_paths_bits(int turn, std::int64_t rows, std::int64_t columns,
                                              const std::vector<std::int64_t>& terms, std::optional<bool> broad) {
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
        CHECK(ran_on_hopper() == is_product, "%d: another path", turn);
        const bool was_broad = ran_broad();
        CHECK(!broad || *broad == was_broad, "%d: other tiles", turn);
        choose("simple");
        args.out = simple.mutable_view(), args.largest = of_simple.data();
        kernel(args);
        CHECK(!ran_on_hopper(), "another path");
        choose("hopper");
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
void usual_epilogues_have_the_simple_paths_bits() {
    for (int turn = 0; turn < 48; ++turn) {
        const std::vector<std::int64_t> terms(turn % 8 != 7 ? 1 : 0, 128);
        const std::int64_t rows = one_of({1, 2, 15, 17, 64, 113, 128, 129, 300, 530});
        usual_epilogue_has_the_simple_paths_bits(turn, rows, one_of({8, 64, 72, 128, 136, 264}), terms, {});
    }
}
// The emulated GPU's three multiprocessors are through sooner by tiles of 256 columns. Sums may be as long as they are
// not cut.
void broad_tiles_have_the_simple_paths_bits() {
    const struct {
        std::int64_t rows, columns;
        std::vector<std::int64_t> terms;
        bool broad;
    } cases[] = {{257, 512, {1024}, true}, {300, 504, {72, 8, 800}, true}, {641, 256, {850}, true},
                 {640, 520, {1000}, true}, {384, 512, {512, 448}, true},   {300, 512, {1032}, false},
                 {300, 512, {512}, false}, {257, 264, {1024}, false},      {300, 512, {}, false}};
    int turn = 0;
    for (const auto& one : cases)
        usual_epilogue_has_the_simple_paths_bits(turn++, one.rows, one.columns, one.terms, one.broad);
}

// Uncut, of positive terms, which all cuts make smaller: within the bound of float32 results of bfloat16.
void a_thousand_terms_are_near() {
    const std::int64_t rows = 70, columns = 64, terms = 1024;
    Sum<bfloat16> sum(rows, columns, {terms}, 0, Fill::reals, to_boundaries);
    for (bfloat16& one : sum.a[0]->host) one.bits &= 0x7fff;
    for (float& one : sum.w[0]->host) one = std::fabs(one);
    sum.a[0]->upload(), sum.w[0]->upload();
    device_kernels<bfloat16>().pack_operand(terms, columns, sum.w[0]->view(), sum.panels[0]->data());
    for (const char* path : {"simple", "hopper"}) {
        choose(path);
        DeviceMatrix<float> wide(rows, columns);
        ForwardArgs<bfloat16> args;
        args.rows = rows, args.columns = columns, args.activation = find_activation("identity");
        args.sources = sum.sources.data(), args.n_sources = 1, args.wide = wide.mutable_view();
        device_kernels<bfloat16>().forward(args);
        CHECK(ran_on_hopper() == (std::strcmp(path, "hopper") == 0), "another path");
        wide.download();
        double error = 0, norm = 0, size = 0;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                const double exact = sum.at(i, j, size), off = wide.at(i, j) - exact;
                error += off * off, norm += exact * exact;
            }
        CHECK(std::sqrt(error / norm) <= 2e-6, "%s: %g", path, std::sqrt(error / norm));
    }
}

// A sum that underflows from below is a zero of the units' own sign, and +0 once it is a part of a sum: then adding −0,
// or nothing, leaves it so on every path.
void no_tile_has_a_negative_zero() {
    for (int skips = 0; skips < 2; ++skips) {
        const std::int64_t rows = 257, columns = 512, terms = 1024;
        Sum<bfloat16> sum(rows, columns, {terms}, skips, Fill::zeros, to_boundaries);
        for (std::int64_t i = 0; i < rows; ++i) (*sum.a[0])(i, terms - 1) = stored<bfloat16>(-0x1p-100);
        for (float& one : sum.w[0]->host) one = 0x1p-100f;
        sum.a[0]->upload(), sum.w[0]->upload();
        device_kernels<bfloat16>().pack_operand(terms, columns, sum.w[0]->view(), sum.panels[0]->data());
        DeviceMatrix<float> bias(1, columns);
        for (float& one : bias.host) one = -0.0f;
        bias.upload();
        for (auto& skip : sum.identity) {
            for (bfloat16& one : skip->host) one = stored<bfloat16>(-0.0);
            skip->upload();
        }
        const auto compare = [&](const char* what, auto args, auto kernel) {
            DeviceMatrix<bfloat16> out(rows, columns);
            args.rows = rows, args.columns = columns, args.activation = find_activation("identity");
            args.sources = sum.sources.data(), args.n_sources = 1;
            args.identity = sum.skips.data(), args.n_identity = skips, args.out = out.mutable_view();
            kernel(args);
            CHECK(ran_on_hopper() && ran_broad(), "%s, %d skips: other tiles", what, skips);
            out.download();
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j)
                    CHECK(!std::signbit(out.at(i, j)) && out.at(i, j) == 0, "%s, %d skips: %g", what, skips,
                          out.at(i, j));
        };
        ForwardArgs<bfloat16> forward;
        compare("output", forward, device_kernels<bfloat16>().forward);
        forward.bias = bias.data();
        compare("output with a bias", forward, device_kernels<bfloat16>().forward);
        compare("data", BackwardDataArgs<bfloat16>(), device_kernels<bfloat16>().backward_data);
    }
}

void both_paths_have_the_same_gradients(std::int64_t rows, std::int64_t inner, std::int64_t columns) {
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
    CHECK(ran_on_hopper(), "another path");
    choose("simple");
    args.gradient = simple.data(), args.bias_gradient = simple_bias.data();
    device_kernels<bfloat16>().backward_weights(args);
    CHECK(!ran_on_hopper(), "another path");
    choose("hopper");
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

void rows_alone() {
    Sum<bfloat16> sum(131, 72, {150, 40}, 0, Fill::reals, to_boundaries);
    DeviceMatrix<bfloat16> together(131, 72), alone(131, 72);
    ForwardArgs<bfloat16> args = plain(sum, together);
    device_kernels<bfloat16>().forward(args);
    for (std::int64_t i = 0; i < 131; i += 13) {
        std::vector<Source<bfloat16>> sources = sum.sources;
        for (Source<bfloat16>& s : sources) s.rows.data += i * s.rows.stride;
        args.rows = 1, args.sources = sources.data(), args.out = {alone.data() + i * alone.stride, alone.stride};
        device_kernels<bfloat16>().forward(args);
        CHECK(ran_on_hopper(), "a row alone takes another path");
    }
    together.download(), alone.download();
    for (std::int64_t i = 0; i < 131; i += 13)
        for (std::int64_t j = 0; j < 72; ++j)
            CHECK(together.at(i, j) == alone.at(i, j), "row %d depends on its batch", int(i));
}

void others_are_left_to_the_simple_path() {
    auto takes = [](std::int64_t inner, Gap gap, std::size_t sources) {
        Sum<bfloat16> sum(70, 24, std::vector<std::int64_t>(sources, inner), 0, Fill::integers, gap);
        DeviceMatrix<bfloat16> out(70, 24);
        device_kernels<bfloat16>().forward(plain(sum, out));
        const bool taken = ran_on_hopper();
        out.download();
        double size = 0;
        CHECK(out.at(69, 23) == value_of(stored<bfloat16>(sum.at(69, 23, size))), "%d: %g", int(inner), out.at(69, 23));
        return taken;
    };
    CHECK(takes(24, to_boundaries, 1), "rows on boundaries");
    CHECK(!takes(24, as_wanted, 1), "rows elsewhere");
    CHECK(takes(8, to_boundaries, 64), "64 sources");
    CHECK(!takes(8, to_boundaries, 65), "65 sources");
}

void paths_are_named() {
    auto refused = [](const char* name, const char* why) {
        CHECK(device().choose_path(0, name) != 0, "%s", name);
        CHECK(std::strstr(device().last_error(), why), "%s", device().last_error());
    };
    refused("ampere", "must be simple, hopper or hopper_narrow, got ampere");
    setenv("RESNETCORE_EMULATED_CAPABILITY", "80", 1);
    refused("hopper", "needs a GPU of compute capability 9.0, found 8.0; unset it");
    setenv("RESNETCORE_EMULATED_CAPABILITY", "100", 1);
    refused("hopper", "found 10.0");
    unsetenv("RESNETCORE_EMULATED_CAPABILITY");
    setenv("RESNETCORE_EMULATED_MAPS_FAIL", "1", 1);
    refused("hopper", "RESNETCORE_CUDA_PATH=hopper needs a driver that makes tensor maps");
    refused("hopper_narrow", "RESNETCORE_CUDA_PATH=hopper_narrow needs a driver");
    unsetenv("RESNETCORE_EMULATED_MAPS_FAIL");
    const auto runs_on_hopper = [](const char* before, const char* name, bool makes_maps = true) {
        choose(before);
        if (!makes_maps) setenv("RESNETCORE_EMULATED_MAPS_FAIL", "1", 1);
        choose(name);
        unsetenv("RESNETCORE_EMULATED_MAPS_FAIL");  // or no product could take Hopper's path, chosen or not
        Sum<bfloat16> sum(8, 8, {8}, 0, Fill::integers, to_boundaries);
        DeviceMatrix<bfloat16> out(8, 8);
        device_kernels<bfloat16>().forward(plain(sum, out));
        return ran_on_hopper();
    };
    CHECK(!runs_on_hopper("hopper", "simple"), "the simple path is not taken");
    for (const char* name : {static_cast<const char*>(nullptr), ""}) {
        CHECK(runs_on_hopper("simple", name), "Hopper's path is not Hopper's default");
        CHECK(!runs_on_hopper("hopper", name, false), "Hopper's path is the default where no maps are made");
        setenv("RESNETCORE_EMULATED_CAPABILITY", "100", 1);
        CHECK(!runs_on_hopper("simple", name), "Hopper's path is the default elsewhere");
        unsetenv("RESNETCORE_EMULATED_CAPABILITY");
    }
}

}  // namespace

int main() {
    paths_are_named();
    choose("hopper");
    sums_of_every_shape();
    check_largest_places<bfloat16>({1, 65, 300}, {1, 7, 72, 264}, to_boundaries);
    CHECK(ran_on_hopper(), "another path");
    both_paths_agree();
    usual_epilogues_have_the_simple_paths_bits();
    broad_tiles_have_the_simple_paths_bits();
    no_tile_has_a_negative_zero();
    a_thousand_terms_are_near();
    // Biases in one share, in one for each tile down W, and in fewer than those.
    for (std::int64_t rows : {1, 63, 100, 390, 1931}) both_paths_have_the_same_gradients(rows, 150, 260);
    for (std::int64_t rows : {129, 390, 1000}) both_paths_have_the_same_gradients(rows, 520, 130);
    // Divided, as the emulated GPU has three multiprocessors: each part in one share, and in two.
    both_paths_have_the_same_gradients(1931, 40, 130);
    both_paths_have_the_same_gradients(4300, 150, 190);
    rows_alone();
    others_are_left_to_the_simple_path();
    return summary("cuda_hopper");
}

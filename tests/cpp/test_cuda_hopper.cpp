// Hopper's path on its emulation, against plain loops in double, and bit for bit against the simple path where both add
// in the same order; what it does not take, the simple path does.
#include "device_paths.h"

using namespace resnetcore;

// Of the emulation: boxes that were copied to global memory, as tiles of 256 columns alone are.
extern "C" long resnetcore_emulated_boxes_stored();

namespace {

const FastPath hopper{"hopper", ran_with_shared_memory};
bool ran_on_hopper() { return hopper.ran(); }

// Whether tiles of 256 columns were among them.
bool ran_broad() {
    static long before = 0;
    device().synchronize();
    const long now = resnetcore_emulated_boxes_stored();
    return std::exchange(before, now) != now;
}

void usual_epilogues_have_the_simple_paths_bits() {
    for (int turn = 0; turn < 48; ++turn) {
        const std::vector<std::int64_t> terms(turn % 8 != 7 ? 1 : 0, 128);
        const std::int64_t rows = one_of({1, 2, 15, 17, 64, 113, 128, 129, 300, 530});
        usual_epilogue_has_the_simple_paths_bits(hopper, turn, rows, one_of({8, 64, 72, 128, 136, 264}), terms, [] {});
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
        usual_epilogue_has_the_simple_paths_bits(hopper, turn++, one.rows, one.columns, one.terms, [&] {
            CHECK(ran_broad() == one.broad, "%d x %d: other tiles", int(one.rows), int(one.columns));
        });
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
    refused("volta", "must be simple, ampere, hopper, hopper_narrow or hopper_fused, got volta");
    setenv("RESNETCORE_EMULATED_CAPABILITY", "80", 1);
    refused("hopper", "needs a GPU of compute capability 9.0, found 8.0; unset it");
    setenv("RESNETCORE_EMULATED_CAPABILITY", "100", 1);
    refused("hopper", "found 10.0");
    unsetenv("RESNETCORE_EMULATED_CAPABILITY");
    setenv("RESNETCORE_EMULATED_MAPS_FAIL", "1", 1);
    refused("hopper", "RESNETCORE_CUDA_PATH=hopper needs a driver that makes tensor maps");
    refused("hopper_narrow", "RESNETCORE_CUDA_PATH=hopper_narrow needs a driver");
    unsetenv("RESNETCORE_EMULATED_MAPS_FAIL");
    setenv("RESNETCORE_EMULATED_DRIVER", "12000", 1);  // which makes maps, and takes 4 KB of parameters
    refused("hopper_narrow", "of CUDA 12.1 or later");
    setenv("RESNETCORE_EMULATED_DRIVER", "12010", 1);
    choose("hopper_narrow");
    unsetenv("RESNETCORE_EMULATED_DRIVER");
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
    sums_of_every_shape(hopper);
    check_largest_places<bfloat16>({1, 65, 300}, {1, 7, 72, 264}, to_boundaries);
    CHECK(ran_on_hopper(), "another path");
    both_paths_agree(hopper);
    usual_epilogues_have_the_simple_paths_bits();
    broad_tiles_have_the_simple_paths_bits();
    no_tile_has_a_negative_zero();
    a_thousand_terms_are_near(hopper);
    // Biases in one share, in one for each tile down W, and in fewer than those.
    for (std::int64_t rows : {1, 63, 100, 390, 1931}) both_paths_have_the_same_gradients(hopper, rows, 150, 260);
    for (std::int64_t rows : {129, 390, 1000}) both_paths_have_the_same_gradients(hopper, rows, 520, 130);
    // Divided, as the emulated GPU has three multiprocessors: each part in one share, and in two.
    both_paths_have_the_same_gradients(hopper, 1931, 40, 130);
    both_paths_have_the_same_gradients(hopper, 4300, 150, 190);
    rows_alone(hopper);
    others_are_left_to_the_simple_path();
    return summary("cuda_hopper");
}

// The path of copies ahead (kernels/cuda/ampere) on the emulation, against plain loops in double, and bit for bit
// against the simple path; what it does not take, the simple path does.
#include "device_paths.h"

using namespace resnetcore;

// Of the emulation: places of 16 bytes that were copied to shared memory past the registers, as no other path does.
extern "C" long resnetcore_emulated_copied_places();
// Dynamic shared memory of the last block that had any: that of four stages of a panel, or of more of two.
extern "C" long resnetcore_emulated_shared_bytes();

namespace {

const FastPath ampere{"ampere", ran_with_shared_memory};

void places_are_copied() {
    const long before = resnetcore_emulated_copied_places();
    both_paths_agree(ampere);
    CHECK(resnetcore_emulated_copied_places() > before, "another path");
}

void check_panels(int panels, const std::string& where) {
    CHECK(resnetcore_emulated_shared_bytes() == (panels == 1 ? 49152 : 67584), "%s: other tiles", where.c_str());
}

// Tiles of two panels, where there are enough for the emulated GPU's three multiprocessors, and of one.
void both_tiles_have_the_simple_paths_bits() {
    const struct {
        std::int64_t rows, columns;
        std::vector<std::int64_t> terms;
    } cases[] = {{100, 64, {1032}},       {70, 72, {512, 100}}, {128, 256, {100, 33, 5}}, {300, 40, {31}},
                 {1, 8, {600, 600}},      {129, 264, {72}},     {300, 128, {1032}},       {400, 200, {8, 264}},
                 {641, 72, {100, 33, 5}}, {530, 520, {31}}};
    const int of_one = 5;
    int turn = 0;
    for (const auto& one : cases) {
        const int panels = turn / 3 < of_one ? 1 : 2;
        for (int again = 0; again < 3; ++again)
            usual_epilogue_has_the_simple_paths_bits(ampere, turn++, one.rows, one.columns, one.terms, [&] {
                check_panels(panels, std::to_string(one.rows) + " x " + std::to_string(one.columns));
            });
    }
    usual_epilogue_has_the_simple_paths_bits(ampere, turn, 130, 136, {}, [] {});
}

void both_tiles_have_the_simple_paths_gradients() {
    const auto compare = [](std::int64_t rows, std::int64_t inner, std::int64_t columns, int panels) {
        both_paths_have_the_same_gradients(ampere, rows, inner, columns);
        check_panels(panels, std::to_string(rows) + " x " + std::to_string(inner) + " x " + std::to_string(columns));
    };
    for (std::int64_t rows : {1, 63, 100, 390, 1931}) compare(rows, 150, 260, 2);
    for (std::int64_t rows : {1, 100}) compare(rows, 150, 120, 1);
    // Divided, as the emulated GPU has three multiprocessors.
    compare(1931, 40, 120, 1);
    compare(1931, 40, 130, 2);
    compare(4300, 150, 190, 2);
}

void others_are_left_to_the_simple_path() {
    const auto takes = [](Gap gap) {
        Sum<bfloat16> sum(70, 24, {24}, 0, Fill::integers, gap);
        DeviceMatrix<bfloat16> out(70, 24);
        device_kernels<bfloat16>().forward(plain(sum, out));
        return ampere.ran();
    };
    CHECK(takes(to_boundaries), "rows on boundaries");
    CHECK(!takes(as_wanted), "rows elsewhere");
    Sum<float> floats(70, 24, {24}, 0, Fill::integers, to_boundaries);
    DeviceMatrix<float> out(70, 24);
    ForwardArgs<float> args;
    args.rows = 70, args.columns = 24, args.sources = floats.sources.data(), args.n_sources = 1;
    args.out = out.mutable_view();
    device_kernels<float>().forward(args);
    CHECK(!ampere.ran(), "floats");
}

void more_sources_than_usual() {
    Sum<bfloat16> sum(70, 24, std::vector<std::int64_t>(100, 8), 0, Fill::integers, to_boundaries);
    DeviceMatrix<bfloat16> out(70, 24);
    device_kernels<bfloat16>().forward(plain(sum, out));
    CHECK(ampere.ran(), "100 sources");
    out.download();
    double size = 0;
    CHECK(out.at(69, 23) == value_of(stored<bfloat16>(sum.at(69, 23, size))), "%g", out.at(69, 23));
}

}  // namespace

int main() {
    // Every GPU that the module is compiled for has what the path needs.
    for (const char* capability : {"80", "89", "90", "100"}) {
        setenv("RESNETCORE_EMULATED_CAPABILITY", capability, 1);
        choose("ampere");
        unsetenv("RESNETCORE_EMULATED_CAPABILITY");
    }
    places_are_copied();
    sums_of_every_shape(ampere);
    check_largest_places<bfloat16>({1, 65, 300}, {1, 7, 72, 264}, to_boundaries);
    CHECK(ampere.ran(), "another path");
    both_tiles_have_the_simple_paths_bits();
    a_thousand_terms_are_near(ampere);
    both_tiles_have_the_simple_paths_gradients();
    rows_alone(ampere);
    others_are_left_to_the_simple_path();
    more_sources_than_usual();
    return summary("cuda_ampere");
}

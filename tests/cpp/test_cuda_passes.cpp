// ReLU's slopes in bits, on the emulation: kept forward where they are documented to lie, and read back instead of what
// was saved, to the same bits as by that; by broad tiles and by chains.
#include "device_paths.h"

extern "C" long resnetcore_emulated_boxes_stored();

using namespace resnetcore;

namespace {

const KernelTable<bfloat16>& kernels() { return device_kernels<bfloat16>(); }

bool ran_broad() {
    static long before = 0;
    device().synchronize();
    const long now = resnetcore_emulated_boxes_stored();
    return std::exchange(before, now) != now;
}

// Room for a step's passes, and where element (i, j)'s is (csrc/kernels/cuda/hopper/passes.cuh): its thread has every
// eighth row of its warp's 16, and two of every eight columns.
struct Bits {
    std::int64_t columns;
    DeviceMatrix<float> words;
    Passes passes;
    Bits(std::int64_t rows, std::int64_t columns) : columns(columns), words(1, kernels().pass_words(rows, columns)) {
        passes.bits = reinterpret_cast<std::uint32_t*>(words.data());
    }
    std::uint32_t& word(std::int64_t i, std::int64_t j) {
        const std::int64_t box = i / 64 * ((columns + 63) / 64) + j / 64;
        const std::int64_t thread = i % 64 / 16 * 32 + i % 8 * 4 + j % 8 / 2;
        return reinterpret_cast<std::uint32_t&>(words.host[static_cast<std::size_t>(box * 128 + thread)]);
    }
    static int place(std::int64_t i, std::int64_t j) {
        return static_cast<int>(2 * (j % 64 / 8) + i % 16 / 8 + 16 * (j % 2));
    }
    bool at(std::int64_t i, std::int64_t j) { return word(i, j) >> place(i, j) & 1; }
    void set(DeviceMatrix<bfloat16>& saved) {
        for (std::int64_t i = 0; i < saved.rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                if (!(saved.at(i, j) <= 0)) word(i, j) |= 1u << place(i, j);
        words.upload();
        passes.there = true;
    }
};

struct Shape {
    std::int64_t rows, columns;
    std::vector<std::int64_t> terms;
    int skips;
};

void check_kept(const std::string& where, Bits& bits, DeviceMatrix<bfloat16>& out) {
    CHECK(bits.passes.there, "%s: passes were not kept", where.c_str());
    bits.words.download();
    for (std::int64_t i = 0; i < out.rows; ++i)
        for (std::int64_t j = 0; j < out.columns; ++j)
            CHECK(bits.at(i, j) == !(out.at(i, j) <= 0), "%s: at %d %d a bit for %g", where.c_str(), int(i), int(j),
                  out.at(i, j));
}

// Zeros of both signs, infinities and NaN are among what was saved.
void make_special(DeviceMatrix<bfloat16>& saved) {
    const double special[] = {0, -0.0, INFINITY, NAN, -1, 0x1p-130};
    for (std::size_t i = 0; i < saved.host.size(); i += 7)
        if (static_cast<std::int64_t>(i) % saved.stride < saved.columns)
            saved.host[i] = stored<bfloat16>(special[i / 7 % std::size(special)]);
    saved.upload();
}

ForwardArgs<bfloat16> forward_args(Sum<bfloat16>& sum, DeviceMatrix<bfloat16>& out) {
    ForwardArgs<bfloat16> args = plain(sum, out);
    args.identity = sum.skips.data(), args.n_identity = static_cast<int>(sum.skips.size());
    args.activation = find_activation("relu");
    return args;
}
BackwardDataArgs<bfloat16> backward_args(Sum<bfloat16>& sum, DeviceMatrix<bfloat16>& saved,
                                         DeviceMatrix<bfloat16>& out) {
    BackwardDataArgs<bfloat16> args;
    args.rows = sum.rows, args.columns = sum.columns, args.activation = find_activation("relu");
    args.sources = sum.sources.data(), args.n_sources = static_cast<int>(sum.sources.size());
    args.identity = sum.skips.data(), args.n_identity = static_cast<int>(sum.skips.size());
    args.saved = saved.view(), args.out = out.mutable_view();
    return args;
}
void forget(DeviceMatrix<bfloat16>& saved) {
    for (bfloat16& one : saved.host) one = stored<bfloat16>(-12345.5);
    saved.upload();
}

void broad_tiles() {
    const Shape shapes[] = {
        {257, 512, {1024}, 0}, {300, 504, {72, 8, 800}, 1}, {641, 256, {850}, 1}, {640, 520, {1000}, 0}};
    for (const Shape& shape : shapes) {
        const std::string where = std::to_string(shape.rows) + " x " + std::to_string(shape.columns);
        Sum<bfloat16> sum(shape.rows, shape.columns, shape.terms, shape.skips, Fill::reals, to_boundaries);
        DeviceMatrix<bfloat16> out(shape.rows, shape.columns, Fill::zeros, to_boundaries(shape.columns, 1)),
            again(shape.rows, shape.columns, Fill::zeros, to_boundaries(shape.columns, 1));
        Bits bits(shape.rows, shape.columns);
        ForwardArgs<bfloat16> forward = forward_args(sum, out);
        kernels().forward(forward);
        forward.out = again.mutable_view(), forward.passes = &bits.passes;
        kernels().forward(forward);
        CHECK(ran_broad(), "%s: other tiles", where.c_str());
        out.download(), again.download();
        CHECK(out.same_bits(again), "%s: outputs of other bits", where.c_str());
        check_kept(where, bits, out);
        // What is no ReLU has none.
        Passes none{bits.passes.bits, false};
        forward.activation = find_activation("identity"), forward.passes = &none;
        kernels().forward(forward);
        CHECK(!none.there, "%s: passes of the identity", where.c_str());

        DeviceMatrix<bfloat16> saved(shape.rows, shape.columns, Fill::reals, to_boundaries(shape.columns, 1));
        make_special(saved);
        Bits of_saved(shape.rows, shape.columns);
        BackwardDataArgs<bfloat16> backward = backward_args(sum, saved, out);
        kernels().backward_data(backward);
        backward.out = again.mutable_view(), backward.passes = &of_saved.passes;
        // None are there yet, and all bits are 0.
        kernels().backward_data(backward);
        out.download(), again.download();
        CHECK(out.same_bits(again), "%s: passes are read that are not there", where.c_str());
        of_saved.set(saved);
        forget(saved);
        kernels().backward_data(backward);
        again.download();
        CHECK(out.same_bits(again), "%s: by passes to other bits", where.c_str());
    }
}

void chains() {
    for (const std::int64_t rows : {1, 64, 100, 330, 700, 900})
        for (const std::int64_t columns : {20, 64, 136}) {
            const std::string where = "a chain of " + std::to_string(rows) + " x " + std::to_string(columns);
            DeviceMatrix<bfloat16> out(rows, columns, Fill::zeros, to_boundaries(columns, 1)),
                next(rows, columns, Fill::zeros, to_boundaries(columns, 1)),
                again(rows, columns, Fill::zeros, to_boundaries(columns, 1)),
                saved(rows, columns, Fill::reals, to_boundaries(columns, 2));
            Sum<bfloat16> first(rows, columns, {columns}, 0, Fill::reals, to_boundaries),
                second(rows, columns, {columns}, 1, Fill::reals, to_boundaries);
            const auto second_reads = [&](DeviceMatrix<bfloat16>& made) { second.sources[0].rows = made.view(); };
            const auto run = [&](ChainStep<bfloat16>& one, ChainStep<bfloat16>& other) {
                const ChainStep<bfloat16> steps[] = {one, other};
                CHECK(kernels().chain({steps, 2, nullptr, nullptr}) == 2, "%s: another path", where.c_str());
            };
            Bits bits(rows, columns), of_next(rows, columns);
            ChainStep<bfloat16> one, other;
            second_reads(out);
            one.forward = forward_args(first, out), other.forward = forward_args(second, next);
            one.forward.passes = &bits.passes, other.forward.passes = &of_next.passes;
            other.forward.activation = find_activation("gelu");
            run(one, other);
            out.download();
            check_kept(where, bits, out);
            CHECK(!of_next.passes.there, "%s: passes of GELU", where.c_str());

            make_special(saved);
            bits.words.host.assign(bits.words.host.size(), 0);
            bits.set(saved);
            one.kind = other.kind = ChainKind::backward_data;
            one.data = backward_args(first, saved, out), other.data = backward_args(second, saved, next);
            run(one, other);
            const std::vector<bfloat16> wanted = (out.download(), out.host);
            other.data.out = again.mutable_view();
            one.data.passes = other.data.passes = &bits.passes;
            forget(saved);
            run(one, other);
            out.download(), next.download(), again.download();
            CHECK(next.same_bits(again), "%s: by passes to other bits", where.c_str());
            CHECK(std::memcmp(wanted.data(), out.host.data(), wanted.size() * sizeof wanted[0]) == 0,
                  "%s: by passes to other bits", where.c_str());
        }
}

void other_paths_keep_none() {
    for (const char* path : {"simple", "ampere", "hopper", "hopper_narrow"}) {
        choose(path);
        CHECK(kernels().pass_words(100, 100) == 0, "%s keeps passes", path);
    }
    for (const char* path : {"hopper", "hopper_narrow"}) {
        choose(path);
        Sum<bfloat16> sum(300, 512, {1024}, 0, Fill::reals, to_boundaries);
        DeviceMatrix<bfloat16> out(300, 512);
        Passes passes{reinterpret_cast<std::uint32_t*>(out.data()), false};
        ForwardArgs<bfloat16> args = forward_args(sum, out);
        args.passes = &passes;
        kernels().forward(args);
        CHECK(ran_broad() && !passes.there, "%s keeps passes", path);
    }
    choose("hopper_fused");
    CHECK(kernels().pass_words(100, 100) == 2 * 2 * 128 && device_kernels<float>().pass_words(100, 100) == 0,
          "words of passes");
}

}  // namespace

int main() {
    choose("hopper_fused");
    broad_tiles();
    chains();
    other_paths_keep_none();
    return summary("cuda_passes");
}

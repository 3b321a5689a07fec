// Chains of narrow layers in one launch, on the emulation: each step against plain loops in double, and bit for bit
// against the same steps, called one by one.
#include "device_products.h"

using namespace resnetcore;

namespace {

void choose(const char* path) { CHECK(device().choose_path(0, path) == 0, "%s", device().last_error()); }

const KernelTable<bfloat16>& kernels() { return device_kernels<bfloat16>(); }

// Of one step: from which activations, by which weights, and which it adds as they are.
struct Layer {
    std::int64_t width;
    std::vector<int> from, identities;
};

// Steps on the device and all that they read; `out` is the input, and then each step's output.
class Steps {
public:
    Steps(std::int64_t rows, std::int64_t inputs, const std::vector<Layer>& layers, bool goes_back, Fill fill,
          int activation = -1)
        : rows(rows), layers(layers), goes_back(goes_back) {
        add(out, inputs, fill);
        for (const Layer& layer : layers) {
            Made& made = *made_.emplace_back(std::make_unique<Made>(rows, layer.width, fill));
            made.activation = activation >= 0 ? activation : static_cast<int>(next_noise() % activation_count());
            made.has_bias = either(), made.keeps_argument = either(), made.widens = either();
            for (int from : layer.from) {
                const std::int64_t inner = out[static_cast<std::size_t>(from)]->columns;
                made.w.push_back(std::make_unique<DeviceMatrix<float>>(inner, layer.width, fill));
                made.panels.push_back(
                    std::make_unique<DeviceMatrix<bfloat16>>(1, operand_size(kernels(), inner, layer.width)));
                kernels().pack_operand(inner, layer.width, made.w.back()->view(), made.panels.back()->data());
            }
            add(out, layer.width, Fill::zeros);
        }
        for (std::size_t l = 0; l < layers.size(); ++l) {
            for (std::size_t s = 0; s < layers[l].from.size(); ++s) {
                DeviceMatrix<bfloat16>& a = *out[static_cast<std::size_t>(layers[l].from[s])];
                made_[l]->sources.push_back({a.view(), made_[l]->panels[s]->data(), a.columns, nullptr});
            }
            for (int i : layers[l].identities) made_[l]->skips.push_back(out[static_cast<std::size_t>(i)]->view());
        }
    }

    std::vector<ChainStep<bfloat16>> links() {
        std::vector<ChainStep<bfloat16>> steps;
        for (std::size_t l = 0; l < layers.size(); ++l) {
            Made& made = *made_[l];
            ChainStep<bfloat16> step;
            step.kind = goes_back ? ChainKind::backward_data : ChainKind::forward, step.is_delta = goes_back,
            step.is_a = !goes_back;
            const auto fill = [&](auto& args) {
                args.rows = rows, args.columns = layers[l].width, args.activation = made.activation;
                args.sources = made.sources.data(), args.n_sources = static_cast<int>(made.sources.size());
                args.identity = made.skips.data(), args.n_identity = static_cast<int>(made.skips.size());
                args.out = out[l + 1]->mutable_view();
            };
            fill(step.forward), fill(step.data);
            if (made.has_bias) step.forward.bias = made.bias.data();
            if (made.keeps_argument) step.forward.argument = made.argument.mutable_view();
            if (made.widens) step.forward.wide = made.wide.mutable_view();
            step.data.saved = made.saved.view(), step.data.saved_is_argument = made.saved_is_argument();
            steps.push_back(step);
        }
        return steps;
    }

    void clear() {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            for (bfloat16& x : made_[l]->argument.host) x = stored<bfloat16>(-12345.5);
            for (float& x : made_[l]->wide.host) x = stored<float>(-12345.5);
            for (bfloat16& x : out[l + 1]->host) x = stored<bfloat16>(-12345.5);
            made_[l]->argument.upload(), made_[l]->wide.upload(), out[l + 1]->upload();
        }
    }
    void download() {
        for (std::size_t l = 0; l < layers.size(); ++l)
            made_[l]->argument.download(), made_[l]->wide.download(), out[l + 1]->download();
    }
    // All that the steps wrote, in a row.
    std::vector<unsigned char> bits() {
        download();
        std::vector<unsigned char> all;
        const auto take = [&](const auto& host) {
            const auto* begin = reinterpret_cast<const unsigned char*>(host.data());
            all.insert(all.end(), begin, begin + host.size() * sizeof host[0]);
        };
        for (std::size_t l = 0; l < layers.size(); ++l)
            take(out[l + 1]->host), take(made_[l]->argument.host), take(made_[l]->wide.host);
        return all;
    }

    // Of the step's inputs as they were stored.
    void check_against_loops(const char* where, bool exact) {
        download();
        for (std::size_t l = 0; l < layers.size(); ++l)
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < layers[l].width; ++j) check_element(where, l, i, j, exact);
    }

    const std::int64_t rows;
    const std::vector<Layer> layers;
    const bool goes_back;
    Matrices<bfloat16> out;

private:
    struct Made {
        Matrices<float> w;
        Matrices<bfloat16> panels;
        std::vector<Source<bfloat16>> sources;
        std::vector<Rows<bfloat16>> skips;
        DeviceMatrix<float> bias, wide;
        DeviceMatrix<bfloat16> argument, saved;
        int activation = 0;
        bool has_bias = false, keeps_argument = false, widens = false;
        Made(std::int64_t rows, std::int64_t width, Fill fill)
            : bias(1, width, fill),
              wide(rows, width, Fill::zeros, 1),
              argument(rows, width, Fill::zeros, to_boundaries(width, 0)),
              saved(rows, width, fill, to_boundaries(width, 8)) {}
        bool saved_is_argument() const { return keeps_argument || activation_needs_argument(activation); }
    };

    void add(Matrices<bfloat16>& to, std::int64_t width, Fill fill) {
        to.push_back(std::make_unique<DeviceMatrix<bfloat16>>(rows, width, fill, to_boundaries(width, 1)));
    }
    void check_element(const char* where, std::size_t l, std::int64_t i, std::int64_t j, bool exact) {
        Made& made = *made_[l];
        double z = 0, size = 2;
        for (std::size_t s = 0; s < layers[l].from.size(); ++s) {
            DeviceMatrix<bfloat16>& a = *out[static_cast<std::size_t>(layers[l].from[s])];
            for (std::int64_t k = 0; k < a.columns; ++k) {
                const double term = a.at(i, k) * value_of(stored<bfloat16>(made.w[s]->at(k, j)));
                z += term, size += std::fabs(term);
            }
        }
        for (int skip : layers[l].identities) z += out[static_cast<std::size_t>(skip)]->at(i, j);
        if (!goes_back && made.has_bias) z += made.bias.at(0, j);
        double a = 0;
        visit_type(made.activation, Activations{}, [&](auto g) {
            using G = decltype(g);
            a = goes_back ? z * derivative<G>(made.saved.at(i, j), made.saved_is_argument()) : G::forward(z);
        });
        const auto check = [&](const char* what, double got, double wanted, double unit) {
            const double allowed =
                exact ? 0 : product_error<bfloat16> * 4 * size + unit * 4 * (std::fabs(wanted) + 1e-2);
            CHECK(std::fabs(got - wanted) <= allowed, "%s, step %d, %s at %d %d: %.9g, not %.9g (allowed %g)", where,
                  int(l), what, int(i), int(j), got, wanted, allowed);
        };
        const auto rounded = [&](double x) { return exact ? value_of(stored<bfloat16>(x)) : x; };
        check("out", out[l + 1]->at(i, j), rounded(a), rounding<bfloat16>);
        if (goes_back) return;
        if (made.keeps_argument) check("argument", made.argument.at(i, j), rounded(z), rounding<bfloat16>);
        if (made.widens) check("wide", made.wide.at(i, j), a, rounding<float>);
    }

    std::vector<std::unique_ptr<Made>> made_;
};

// How many steps went in one call.
std::int64_t run(const std::vector<ChainStep<bfloat16>>& steps, double* largest_a = nullptr,
                 double* largest_delta = nullptr) {
    return kernels().chain({steps.data(), static_cast<std::int64_t>(steps.size()), largest_a, largest_delta});
}
void run_alone(const ChainStep<bfloat16>& step) {
    if (step.kind == ChainKind::backward_data)
        kernels().backward_data(step.data);
    else
        kernels().forward(step.forward);
}
void run_one_by_one(const std::vector<ChainStep<bfloat16>>& steps) {
    for (const auto& step : steps) run_alone(step);
}

std::vector<Layer> random_layers(std::int64_t inputs, int depth) {
    std::vector<std::int64_t> widths{inputs};
    std::vector<Layer> layers;
    const std::int64_t usual = one_of({16, 24, 64, 72, 128, 200, 256});
    for (int l = 1; l <= depth; ++l) {
        Layer layer{l == depth              ? one_of({10, 1, usual})
                    : next_noise() % 4 == 0 ? one_of({8, 40, 100})
                                            : usual,
                    {l - 1},
                    {}};
        if (l > 1 && next_noise() % 3 == 0) layer.from.push_back(static_cast<int>(one_of({0, l - 2})));
        for (int back = 2; back <= 3 && back <= l; ++back)
            if (widths[static_cast<std::size_t>(l - back)] == layer.width && next_noise() % 2 == 0)
                layer.identities.push_back(l - back);
        widths.push_back(layer.width);
        layers.push_back(std::move(layer));
    }
    return layers;
}

void chains_of_every_kind() {
    int whole = 0;  // others need more room on the chip at a time
    for (int turn = 0; turn < 36; ++turn) {
        const bool integers = turn % 4 == 0, goes_back = turn % 3 == 1;
        const std::int64_t rows = one_of({1, 17, 64, 65, 128, 190, 200, 330, 450}), inputs = one_of({5, 20, 64, 130});
        // Integers stay small enough to be exact only where sums are short.
        const int depth = integers ? 2 : static_cast<int>(one_of({2, 3, 4, 6}));
        Steps steps(rows, inputs, random_layers(inputs, depth), goes_back, integers ? Fill::integers : Fill::reals,
                    integers ? 0 : -1);
        const std::string where =
            std::to_string(turn) + ": " + std::to_string(rows) + " rows, " + std::to_string(depth) + " steps";
        const auto links = steps.links();
        steps.clear();
        auto rest = links;
        const std::int64_t done = run(rest);
        whole += done == depth;
        rest.erase(rest.begin(), rest.begin() + done);
        run_one_by_one(rest);
        steps.check_against_loops(where.c_str(), integers);
        const auto in_one = steps.bits();
        steps.clear();
        run_one_by_one(links);
        CHECK(steps.bits() == in_one, "%s: one by one, the bits are others", where.c_str());
    }
    CHECK(whole >= 30, "%d chains of 36 in one call", whole);
}

std::vector<Layer> residual(std::int64_t width, int depth) {
    std::vector<Layer> layers;
    for (int l = 1; l <= depth; ++l) {
        layers.push_back({width, {l - 1}, {}});
        if (l > 1) layers.back().identities.push_back(l - 2);
    }
    return layers;
}

// Weights that stay, and weights that come again for every tile; more tiles than blocks.
void several_tiles() {
    for (const auto& [width, depth] : {std::pair<std::int64_t, int>{64, 6}, {128, 5}, {256, 4}})
        for (const std::int64_t rows : {100, 900}) {
            Steps steps(rows, width, residual(width, depth), false, Fill::reals, 1);
            const auto links = steps.links();
            steps.clear();
            CHECK(run(links) == depth, "%d wide: another path", int(width));
            const auto in_one = steps.bits();
            steps.clear();
            run_one_by_one(links);
            CHECK(steps.bits() == in_one, "%d wide, %d rows: one by one, the bits are others", int(width), int(rows));
        }
}

// What nobody reads behind the chain is not written.
void outputs_stay_on_the_chip() {
    std::vector<Layer> layers = residual(64, 6);
    for (int l = 3; l <= 6; ++l) layers[static_cast<std::size_t>(l - 1)].identities.push_back(l - 3);
    Steps steps(150, 64, layers, false, Fill::reals, 1);
    const double canary = value_of(stored<bfloat16>(-12345.5));  // of `clear`
    auto links = steps.links();
    run_one_by_one(links);
    steps.download();
    const std::vector<bfloat16> wanted = steps.out.back()->host;
    steps.clear();
    for (std::size_t l = 0; l + 1 < links.size(); ++l)
        links[l].last_reader = static_cast<std::int64_t>(std::min(l + 3, links.size() - 1));
    links.back().last_reader = static_cast<std::int64_t>(links.size());
    CHECK(run(links) == 6, "another path");
    steps.download();
    for (std::size_t l = 1; l < links.size(); ++l)
        CHECK(steps.out[l]->at(149, 63) == canary, "activation %d is written", int(l));
    CHECK(std::memcmp(wanted.data(), steps.out.back()->host.data(), wanted.size() * sizeof wanted[0]) == 0,
          "the last output is another");
}

void rows_alone() {
    Steps steps(300, 72, residual(72, 3), false, Fill::reals);
    auto links = steps.links();
    steps.clear();
    CHECK(run(links) == 3, "another path");
    const auto together = steps.bits();
    steps.clear();
    for (std::int64_t i = 0; i < 300; ++i) {
        if (i % 37 != 0) continue;
        auto alone = links;
        std::vector<std::vector<Source<bfloat16>>> sources;
        std::vector<std::vector<Rows<bfloat16>>> skips;
        for (auto& link : alone) {
            ForwardArgs<bfloat16>& args = link.forward;
            sources.emplace_back(args.sources, args.sources + args.n_sources);
            skips.emplace_back(args.identity, args.identity + args.n_identity);
            for (auto& s : sources.back()) s.rows.data += i * s.rows.stride;
            for (auto& s : skips.back()) s.data += i * s.stride;
            args.rows = 1, args.sources = sources.back().data(), args.identity = skips.back().data();
            for (auto* to : {&args.out, &args.argument})
                if (to->data) to->data += i * to->stride;
            if (args.wide.data) args.wide.data += i * args.wide.stride;
        }
        CHECK(run(alone) == 3, "a row alone takes another path");
    }
    steps.download();
    const std::vector<bfloat16> last = steps.out.back()->host;
    run(links);
    CHECK(steps.bits() == together, "a second run gives other bits");
    for (std::int64_t i = 0; i < 300; i += 37)
        for (std::int64_t j = 0; j < 72; ++j) {
            const bfloat16 alone = last[static_cast<std::size_t>(i * steps.out.back()->stride + j)];
            CHECK(alone.bits == (*steps.out.back())(i, j).bits, "row %d depends on its batch", int(i));
        }
}

void magnitudes() {
    for (const bool goes_back : {false, true}) {
        Steps steps(200, 40, residual(40, 3), goes_back, Fill::reals, 1);
        if (!goes_back) steps.out[0]->host[0] = to_bfloat16(NAN), steps.out[0]->upload();
        const OnDevice<double> a(0.0), delta(0.0), wanted(0.0);
        const auto links = steps.links();
        CHECK(run(links, a.data(), delta.data()) == 3, "another path");
        for (const auto& link : links)
            kernels().largest({200, 40, goes_back ? link.data.out : link.forward.out, wanted.data()});
        const double got = goes_back ? delta.get() : a.get();
        CHECK(std::isnan(wanted.get()) ? std::isnan(got) : got == wanted.get(), "%g, not %g", got, wanted.get());
        CHECK((goes_back ? a.get() : delta.get()) == 0, "what is not asked for is measured");
    }
}

// A chain ends where another block's rows could be written over: two outputs in one place, of different strides.
void shared_memory_ends_a_chain() {
    Steps steps(300, 64, residual(64, 5), false, Fill::reals, 1);
    auto links = steps.links();
    std::vector<Source<bfloat16>> sources(links[4].forward.sources, links[4].forward.sources + 1);
    links[3].forward.out = {steps.out[1]->data(), 136};  // rows of the first output, 72 apart, lie there
    sources[0].rows = links[3].forward.out;
    links[4].forward.sources = sources.data();
    for (auto* args : {&links[0].forward, &links[1].forward, &links[2].forward}) args->argument = {}, args->wide = {};
    links[3].forward.argument = links[4].forward.argument = {}, links[3].forward.wide = links[4].forward.wide = {};
    CHECK(run(links) == 3, "a chain goes over memory of another stride");
    sources[0].rows.stride = links[3].forward.out.stride = steps.out[1]->stride;
    CHECK(run(links) == 5, "a chain ends where rows are its own");
}

void others_are_left_to_single_steps() {
    const auto takes = [](std::int64_t inputs, std::int64_t width, void (*change)(ChainStep<bfloat16>&)) {
        Steps steps(70, inputs, {{width, {0}, {}}, {width, {1}, {}}, {width, {2}, {}}}, false, Fill::reals, 1);
        auto links = steps.links();
        change(links[1]);
        return run(links);
    };
    static DeviceMatrix<float> mask(70, 64, Fill::reals);
    static DeviceMatrix<bfloat16> odd(70, 64, Fill::reals, 1);
    const auto as_it_is = [](ChainStep<bfloat16>&) {};
    CHECK(takes(64, 64, as_it_is) == 3, "three steps");
    CHECK(takes(64, 257, as_it_is) == 0, "257 wide");
    CHECK(takes(300, 64, as_it_is) == 0, "from 300");
    CHECK(takes(64, 64, [](ChainStep<bfloat16>& s) { s.forward.mask = mask.view(); }) == 0, "a mask");
    CHECK(takes(64, 64, [](ChainStep<bfloat16>& s) { s.forward.branch.z = odd.view(); }) == 0, "a branch");
    CHECK(takes(64, 64, [](ChainStep<bfloat16>& s) { s.forward.out = odd.mutable_view(); }) == 0, "rows elsewhere");
    for (const char* path : {"simple", "hopper"}) {
        choose(path);
        CHECK(takes(64, 64, as_it_is) == 0, "%s takes a chain", path);
    }
    choose("hopper_narrow");
    std::vector<Layer> deep = residual(8, 70);
    Steps steps(20, 8, deep, false, Fill::reals, 1);
    const std::int64_t done = run(steps.links());
    CHECK(done > 32 && done < 70, "%d steps of 70", int(done));
    CHECK(device_kernels<float>().chain({nullptr, 0, nullptr, nullptr}) == 0, "float");
}

}  // namespace

int main() {
    choose("hopper_narrow");
    chains_of_every_kind();
    several_tiles();
    outputs_stay_on_the_chip();
    rows_alone();
    magnitudes();
    shared_memory_ends_a_chain();
    others_are_left_to_single_steps();
    return summary("cuda_chain");
}

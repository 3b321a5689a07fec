// Chains that go on through batch norms, on the emulation: sums against plain loops in double, of what was stored, and
// what is made by them bit for bit against single steps with the same coefficients.
#include "device_products.h"
#include "math/normalisation.h"

using namespace resnetcore;

namespace {

const KernelTable<bfloat16>& kernels() { return device_kernels<bfloat16>(); }
void choose(const char* path) { CHECK(device().choose_path(0, path) == 0, "%s", device().last_error()); }

using Matrix = DeviceMatrix<bfloat16>;
using Vector = DeviceMatrix<float>;

// A product and its norm, either way. Forward: z, then a = g(norm(z) + skips); back: δ, then what goes back through the
// norm of z.
struct Layer {
    std::int64_t rows, columns;
    bool back, frozen, accumulate = either();
    Matrix made{rows, columns, Fill::zeros, to_boundaries(columns, 2)},
        out{rows, columns, Fill::zeros, to_boundaries(columns, 1)};
    Matrix z{rows, columns, Fill::reals, to_boundaries(columns, 3)},
        saved{rows, columns, Fill::reals, to_boundaries(columns, 1)};
    Vector mean{1, columns, Fill::reals}, inverse{1, columns, Fill::reals}, scale{1, columns, Fill::reals},
        shift{1, columns, Fill::reals}, weight{1, columns, Fill::reals}, bias{1, columns, Fill::reals};
    Vector running_mean{1, columns, Fill::reals}, running_var{1, columns, Fill::reals},
        next_mean{1, columns, Fill::reals}, next_var{1, columns, Fill::reals};
    Vector mean_d{1, columns, Fill::reals}, mean_dx{1, columns, Fill::reals}, d_weight{1, columns, Fill::reals},
        d_bias{1, columns, Fill::reals};
    std::vector<float> d_weight_before = d_weight.host, d_bias_before = d_bias.host;
    std::vector<std::unique_ptr<Vector>> weights;
    std::vector<std::unique_ptr<Matrix>> panels;
    std::vector<Source<bfloat16>> source, learned;  // of the product, and of a skip
    std::vector<Rows<bfloat16>> skips;

    Source<bfloat16> by_weight(Matrix& from) {
        weights.push_back(std::make_unique<Vector>(from.columns, columns, Fill::reals));
        panels.push_back(std::make_unique<Matrix>(1, operand_size(kernels(), from.columns, columns)));
        kernels().pack_operand(from.columns, columns, weights.back()->view(), panels.back()->data());
        return {from.view(), panels.back()->data(), from.columns, nullptr};
    }

    CombineMomentsArgs<bfloat16> moments() {
        return {0,
                columns,
                {nullptr, columns, rows, rows},
                weight.data(),
                bias.data(),
                {mean.data(), inverse.data(), scale.data(), shift.data()},
                running_mean.data(),
                running_var.data(),
                next_mean.data(),
                next_var.data()};
    }
    CombineNormSumsArgs<bfloat16> sums() {
        return {0,
                columns,
                {nullptr, columns, rows, rows},
                frozen,
                accumulate,
                mean_d.data(),
                mean_dx.data(),
                d_weight.data(),
                d_bias.data()};
    }
    ForwardArgs<bfloat16> forward() {
        ForwardArgs<bfloat16> args;
        args.rows = rows, args.columns = columns, args.activation = find_activation("relu");
        args.sources = learned.data(), args.n_sources = static_cast<int>(learned.size());
        args.identity = skips.data(), args.n_identity = static_cast<int>(skips.size());
        args.branch = {made.view(), mean.data(), scale.data(), shift.data(), {}};
        args.out = out.mutable_view();
        return args;
    }
    NormBackwardArgs<bfloat16> undo() {
        NormBackwardArgs<bfloat16> args;
        args.rows = rows, args.columns = columns, args.delta = made.view(), args.z = z.view();
        args.mean = mean.data(), args.inverse_deviation = inverse.data(), args.scale = scale.data();
        args.mean_d = mean_d.data(), args.mean_dx = mean_dx.data();
        args.out = out.mutable_view();
        return args;
    }
    template <class Args>
    Args product() {
        Args args;
        args.rows = rows, args.columns = columns, args.activation = find_activation(back ? "relu" : "identity");
        args.sources = source.data(), args.n_sources = static_cast<int>(source.size());
        args.out = made.mutable_view();
        return args;
    }

    void add_steps(std::vector<ChainStep<bfloat16>>& steps) {
        ChainStep<bfloat16> first, second;
        if (back) {
            first.kind = ChainKind::backward_data, second.kind = ChainKind::undo_norm;
            first.data = product<BackwardDataArgs<bfloat16>>();
            first.data.saved = saved.view();
            first.data.identity = skips.data(), first.data.n_identity = static_cast<int>(skips.size());
            second.undo = undo(), second.sums = sums();
        } else {
            first.kind = ChainKind::forward, second.kind = ChainKind::apply_norm;
            first.forward = product<ForwardArgs<bfloat16>>();
            second.forward = forward(), second.moments = moments();
        }
        second.is_a = !back, second.is_delta = back;
        steps.push_back(first), steps.push_back(second);
    }

    void download() {
        made.download(), out.download();
        for (Vector* one :
             {&mean, &inverse, &scale, &shift, &next_mean, &next_var, &mean_d, &mean_dx, &d_weight, &d_bias})
            one->download();
    }
};

class Network {
public:
    Network(std::int64_t rows, std::int64_t inputs, std::int64_t columns, int depth, bool back)
        : Network(rows, inputs, std::vector<std::int64_t>(static_cast<std::size_t>(depth), columns), back) {}
    Network(std::int64_t rows, std::int64_t inputs, const std::vector<std::int64_t>& widths, bool back)
        : input(rows, inputs, Fill::reals, to_boundaries(inputs, 1)) {
        for (int l = 0; l < static_cast<int>(widths.size()); ++l) {
            const std::int64_t columns = widths[static_cast<std::size_t>(l)];
            layers.emplace_back(new Layer{rows, columns, back, either()});
            Layer& layer = *layers.back();
            layer.source.push_back(layer.by_weight(l > 0 ? layers[static_cast<std::size_t>(l - 1)]->out : input));
            if (l < 2) continue;
            Matrix& before = layers[static_cast<std::size_t>(l - 2)]->out;
            if (before.columns != columns) continue;
            if (l % 3 == 0 && !back)
                layer.learned.push_back(layer.by_weight(before));
            else
                layer.skips.push_back(before.view());
        }
        for (auto& layer : layers) layer->add_steps(steps);
    }
    std::int64_t run() {
        return kernels().chain(
            {steps.data(), static_cast<std::int64_t>(steps.size()), largest_a.data(), largest_delta.data()});
    }
    std::vector<unsigned char> bits() {
        std::vector<unsigned char> all;
        const auto take = [&](const auto& host) {
            const auto* begin = reinterpret_cast<const unsigned char*>(host.data());
            all.insert(all.end(), begin, begin + host.size() * sizeof host[0]);
        };
        for (auto& layer : layers) {
            layer->download();
            take(layer->out.host), take(layer->made.host), take(layer->d_weight.host), take(layer->next_var.host);
        }
        return all;
    }

    Matrix input;
    std::vector<std::unique_ptr<Layer>> layers;
    std::vector<ChainStep<bfloat16>> steps;
    OnDevice<double> largest_a{0.0}, largest_delta{0.0};
};

void check(const std::string& where, const char* what, std::int64_t j, double got, double wanted, double allowed) {
    CHECK(std::fabs(got - wanted) <= allowed, "%s, %s of column %d: %.9g, not %.9g (allowed %g)", where.c_str(), what,
          int(j), got, wanted, allowed);
}

void check_moments(const std::string& where, Layer& layer, double roundings = 64) {
    const double n = static_cast<double>(layer.rows), small = roundings * rounding<float>;
    for (std::int64_t j = 0; j < layer.columns; ++j) {
        double mean = 0, squares = 0;
        for (std::int64_t i = 0; i < layer.rows; ++i) mean += layer.made.at(i, j);
        mean /= n;
        for (std::int64_t i = 0; i < layer.rows; ++i) squares += std::pow(layer.made.at(i, j) - mean, 2);
        const double variance = squares / n, inverse = 1 / std::sqrt(variance + norm_eps);
        const double size = std::fabs(mean) + std::sqrt(variance);
        check(where, "mean", j, layer.mean.at(0, j), mean, small * size);
        check(where, "inverse deviation", j, layer.inverse.at(0, j), inverse, small * inverse * (1 + size * inverse));
        check(where, "scale", j, layer.scale.at(0, j), layer.weight.at(0, j) * layer.inverse.at(0, j),
              small * std::fabs(layer.scale.at(0, j)));
        check(where, "shift", j, layer.shift.at(0, j), layer.bias.at(0, j), 0);
        check(where, "running mean", j, layer.next_mean.at(0, j), 0.9 * layer.running_mean.at(0, j) + 0.1 * mean,
              small * (1 + size));
        if (layer.rows > 1)
            check(where, "running variance", j, layer.next_var.at(0, j),
                  0.9 * layer.running_var.at(0, j) + 0.1 * squares / (n - 1), small * (1 + variance));
    }
}

void check_sums(const std::string& where, Layer& layer) {
    const double n = static_cast<double>(layer.rows), small = 64 * rounding<float>;
    for (std::int64_t j = 0; j < layer.columns; ++j) {
        double sum = 0, sum_xhat = 0, size = 1;
        for (std::int64_t i = 0; i < layer.rows; ++i) {
            const double d = layer.made.at(i, j);
            const double xhat = (layer.z.at(i, j) - layer.mean.at(0, j)) * layer.inverse.at(0, j);
            sum += d, sum_xhat += d * xhat, size += std::fabs(d) + std::fabs(d * xhat);
        }
        const std::size_t at = static_cast<std::size_t>(j);
        const double before_bias = layer.accumulate ? double(layer.d_bias_before[at]) : 0;
        const double before_weight = layer.accumulate ? double(layer.d_weight_before[at]) : 0;
        check(where, "d_bias", j, layer.d_bias.at(0, j), before_bias + sum, small * size);
        check(where, "d_weight", j, layer.d_weight.at(0, j), before_weight + sum_xhat, small * size);
        check(where, "mean_d", j, layer.mean_d.at(0, j), layer.frozen ? 0 : sum / n, small * size / n);
        check(where, "mean_dx", j, layer.mean_dx.at(0, j), layer.frozen ? 0 : sum_xhat / n, small * size / n);
    }
}

// Single steps from what the chain's norms found, which leave the same bits.
void check_against_steps(const std::string& where, Layer& layer, double& most) {
    const std::vector<bfloat16> made = layer.made.host, out = layer.out.host;
    if (layer.back) {
        BackwardDataArgs<bfloat16> args = layer.product<BackwardDataArgs<bfloat16>>();
        args.saved = layer.saved.view();
        args.identity = layer.skips.data(), args.n_identity = static_cast<int>(layer.skips.size());
        kernels().backward_data(args);
        kernels().norm_backward(layer.undo());
    } else {
        kernels().forward(layer.product<ForwardArgs<bfloat16>>());
        kernels().forward(layer.forward());
    }
    layer.made.download(), layer.out.download();
    const auto same = [](const std::vector<bfloat16>& x, const std::vector<bfloat16>& y) {
        return std::memcmp(x.data(), y.data(), x.size() * sizeof x[0]) == 0;
    };
    CHECK(same(made, layer.made.host), "%s: a product of other bits", where.c_str());
    CHECK(same(out, layer.out.host), "%s: normed to other bits", where.c_str());
    for (std::int64_t i = 0; i < layer.rows; ++i)
        for (std::int64_t j = 0; j < layer.columns; ++j) most = std::max(most, std::fabs(layer.out.at(i, j)));
}

void check_network(Network& network, const std::string& where, bool back) {
    const std::int64_t done = network.run(), all = static_cast<std::int64_t>(network.steps.size());
    CHECK(done == all, "%s: %d steps in one call", where.c_str(), int(done));
    const auto in_one = network.bits();
    double most = 0;
    for (auto& layer : network.layers) {
        back ? check_sums(where, *layer) : check_moments(where, *layer);
        check_against_steps(where, *layer, most);
    }
    const double got = back ? network.largest_delta.get() : network.largest_a.get();
    CHECK(got == most, "%s: the largest is %g, not %g", where.c_str(), got, most);
    if (back) return;
    CHECK(network.run() == done && network.bits() == in_one, "%s: a second run gives other bits", where.c_str());
}

// Norms' rooms for sums and coefficients are those of the widest, or one's sums would lie over another's coefficients.
void widths_differ() {
    for (const std::int64_t rows : {100, 330, 700})
        for (const bool back : {false, true}) {
            Network network(rows, 30, {64, 128, 20, 128, 100, 64}, back);
            check_network(network, std::to_string(rows) + " rows of other widths" + (back ? ", back" : ""), back);
        }
}

void chains_go_on_through_norms() {
    for (const std::int64_t rows : {1, 64, 100, 190, 330, 768})
        for (const std::int64_t columns : {20, 64, 72, 256})
            for (const bool back : {false, true}) {
                const bool has_room = columns <= 128 || rows <= (columns <= 192 ? 384 : 192);
                if (!has_room) continue;
                const int depth = columns > 128 ? 3 : 4;
                Network network(rows, one_of({5, 64, 100}), columns, depth, back);
                const std::string where =
                    std::to_string(rows) + " x " + std::to_string(columns) + (back ? ", back" : "");
                check_network(network, where, back);
            }
}

// Deviations are from the mean: a large one costs them no digits, where sums of squares would lose 16 bits.
void a_large_mean_costs_nothing() {
    Network network(300, 64, 64, 2, false);
    Vector& w = *network.layers[0]->weights[0];
    for (std::int64_t i = 0; i < 64; ++i)
        for (std::int64_t j = 0; j < 64; ++j) w(i, j) = i == 0 ? 1 : i == j ? 16 : 0;
    w.upload();
    for (std::int64_t i = 0; i < 300; ++i) network.input(i, 0) = to_bfloat16(1024);
    network.input.upload();
    kernels().pack_operand(64, 64, w.view(), network.layers[0]->panels[0]->data());
    CHECK(network.run() == 4, "another path");
    network.layers[0]->download();
    check_moments("a large mean", *network.layers[0], 2);
}

void norms_end_other_chains() {
    Network many(800, 64, 64, 2, false);  // more tiles than blocks
    CHECK(many.run() == 0, "blocks meet that have several tiles");
    Network masked(100, 64, 64, 3, false);
    static DeviceMatrix<float> mask(100, 64, Fill::reals);
    masked.steps[3].forward.branch.mask = mask.view();
    CHECK(masked.run() == 3, "a chain takes dropout of a branch");
    masked.steps[3].forward.branch.mask = {};
    static Matrix odd(100, 64, Fill::reals, 1);
    masked.steps[3].forward.branch.z = odd.view();
    CHECK(masked.run() == 3, "a chain takes rows elsewhere");
    Network back(100, 64, 64, 3, true);
    back.steps[1].undo.mask = mask.view();
    CHECK(back.run() == 0, "a chain takes dropout back");
    Network deep(64, 8, 8, 34, false);
    const std::int64_t done = deep.run();
    CHECK(done > 40 && done < 64, "%d steps of 68: there are 64 operations and 32 norms", int(done));
    choose("hopper_narrow");
    Network narrow(100, 64, 64, 3, false);
    CHECK(narrow.run() == 0, "another path's chain goes on through norms");
    CHECK(!kernels().chains_norms(), "another path says so");
    choose("hopper_fused");
    CHECK(kernels().chains_norms() && !device_kernels<float>().chains_norms(), "who goes on through norms");
}

}  // namespace

int main() {
    choose("hopper_fused");
    chains_go_on_through_norms();
    widths_differ();
    a_large_mean_costs_nothing();
    norms_end_other_chains();
    return summary("cuda_fused_chain");
}

#include "functional/residual.h"

#include <algorithm>

#include "kernels/select.h"
#include "math/activation.h"
#include "runtime/aligned.h"
#include "runtime/executor.h"
#include "runtime/thread_pool.h"

namespace resnetcore {
namespace {

// Fewer multiplications than this are done before a second thread is awake.
constexpr double worth_waking = 2e6;

template <class T>
double multiplications(const ResidualArguments<T>& arguments) {
    double sum = 0;
    for (const Matrix<T>& source : arguments.sources)
        sum += static_cast<double>(arguments.rows) * source.columns * arguments.columns;
    return sum;
}

template <class T>
int team_size(const ResidualArguments<T>& arguments) {
    return multiplications(arguments) < worth_waking ? 1 : get_num_threads();
}

std::int64_t tile_height(std::int64_t rows, int threads) {
    return std::clamp<std::int64_t>((rows + threads - 1) / threads, 1, 256);
}

template <class T>
using PackedWeights = std::vector<AlignedArray<T>>;

template <class T, class Pack>
PackedWeights<T> pack_all(const ResidualArguments<T>& arguments, Pack pack, bool transposed) {
    const std::int64_t panel = kernels<T>().panel;
    PackedWeights<T> packed;
    for (const Matrix<T>& w : arguments.weights) {
        packed.emplace_back(transposed ? packed_size(w.columns, w.rows, panel) : packed_size(w.rows, w.columns, panel));
        pack(w.rows, w.columns, Rows<T>{w.data, w.stride}, packed.back().data());
    }
    return packed;
}

template <class T>
Rows<T> rows_from(const Matrix<T>& m, std::int64_t row) {
    return {m.data + row * m.stride, m.stride};
}

template <class T>
void forward_rows(const ResidualArguments<T>& arguments, const PackedWeights<T>& packed, MutableRows<T> out,
                  std::int64_t begin, std::int64_t end, bool argument_only) {
    std::vector<Source<T>> sources;
    std::vector<Rows<T>> identity;
    sources.reserve(arguments.sources.size());
    identity.reserve(arguments.identity.size());
    for (std::size_t s = 0; s < arguments.sources.size(); ++s)
        sources.push_back({rows_from(arguments.sources[s], begin), packed[s].data(), arguments.sources[s].columns});
    for (const Matrix<T>& term : arguments.identity) identity.push_back(rows_from(term, begin));
    ForwardArgs<T> args;
    args.rows = end - begin;
    args.columns = arguments.columns;
    args.sources = sources.data();
    args.n_sources = static_cast<int>(sources.size());
    args.bias = arguments.bias;
    args.identity = identity.data();
    args.n_identity = static_cast<int>(identity.size());
    args.activation = argument_only ? find_activation("identity") : arguments.activation;
    args.out = {out.data + begin * out.stride, out.stride};
    kernels<T>().forward(args);
}

template <class Body>
void for_row_tiles(std::int64_t rows, int threads, Body body) {
    const std::int64_t height = tile_height(rows, threads);
    WorkQueue queue;
    queue.reserve(threads);
    queue.reset((rows + height - 1) / height, threads);
    run_on_team(
        [&](Team& team) {
            std::int64_t tile;
            while (queue.take(team.rank(), tile)) body(tile * height, std::min((tile + 1) * height, rows));
        },
        threads);
}

// δ = ∂E/∂a ⊙ g′, from the output, or from the argument where the derivative needs it.
template <class T>
void delta_rows(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> saved, MutableRows<T> delta,
                std::int64_t begin, std::int64_t end) {
    const Rows<T> incoming{gradient.data + begin * gradient.stride, gradient.stride};
    BackwardDataArgs<T> args;
    args.rows = end - begin;
    args.columns = arguments.columns;
    args.identity = &incoming;
    args.n_identity = 1;
    args.activation = arguments.activation;
    args.saved = {saved.data + begin * saved.stride, saved.stride};
    args.saved_is_argument = activation_needs_argument(arguments.activation);
    args.out = {delta.data + begin * delta.stride, delta.stride};
    kernels<T>().backward_data(args);
}

template <class T>
void source_rows(const ResidualArguments<T>& arguments, std::size_t s, const PackedWeights<T>& transposed,
                 MutableRows<T> delta, MutableRows<T> out, std::int64_t begin, std::int64_t end) {
    const Source<T> source{{delta.data + begin * delta.stride, delta.stride}, transposed[s].data(), arguments.columns};
    BackwardDataArgs<T> args;
    args.rows = end - begin;
    args.columns = arguments.sources[s].columns;
    args.sources = &source;
    args.n_sources = 1;
    args.out = {out.data + begin * out.stride, out.stride};
    kernels<T>().backward_data(args);
}

template <class T>
void weight_gradients(const ResidualArguments<T>& arguments, const ResidualGradients<T>& out, int threads) {
    const KernelTable<T>& table = kernels<T>();
    const std::int64_t panels = panel_count(arguments.columns, table.panel);
    std::int64_t inner = 1;
    std::vector<AlignedArray<T>> packed;
    for (const Matrix<T>& w : arguments.weights) {
        packed.emplace_back(packed_size(w.rows, w.columns, table.panel));
        inner = std::max(inner, w.rows);
    }
    std::vector<AlignedArray<T>> scratch;
    scratch.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) scratch.emplace_back(inner * table.panel);
    WorkQueue queue;
    queue.reserve(threads);
    queue.reset(panels * static_cast<std::int64_t>(arguments.sources.size()), threads);
    run_on_team(
        [&](Team& team) {
            std::int64_t unit;
            while (queue.take(team.rank(), unit)) {
                const std::size_t s = static_cast<std::size_t>(unit / panels);
                const Matrix<T>& a = arguments.sources[s];
                BackwardWeightsArgs<T> args;
                args.rows = arguments.rows;
                args.inner = a.columns;
                args.columns = arguments.columns;
                args.first_panel = unit % panels;
                args.last_panel = args.first_panel + 1;
                args.a = {a.data, a.stride};
                args.delta = out.delta;
                args.gradient = packed[s].data();
                args.has_bias = out.bias && s == 0;
                args.bias_gradient = out.bias;
                args.sums = scratch[team.rank()].data();
                table.backward_weights(args);
            }
        },
        threads);
    for (std::size_t s = 0; s < packed.size(); ++s)
        table.unpack(arguments.weights[s].rows, arguments.columns, packed[s].data(), out.weights[s]);
}

}  // namespace

template <class T>
void residual_forward(const ResidualArguments<T>& arguments, MutableRows<T> out) {
    const PackedWeights<T> packed = pack_all(arguments, kernels<T>().pack, false);
    for_row_tiles(arguments.rows, team_size(arguments), [&](std::int64_t begin, std::int64_t end) {
        forward_rows(arguments, packed, out, begin, end, false);
    });
}

template <class T>
void residual_backward(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                       const ResidualGradients<T>& out) {
    const int threads = team_size(arguments);
    const PackedWeights<T> transposed = pack_all(arguments, kernels<T>().pack_transposed, true);
    const bool recompute = activation_needs_argument(arguments.activation);
    PackedWeights<T> packed;
    if (recompute) packed = pack_all(arguments, kernels<T>().pack, false);
    for_row_tiles(arguments.rows, threads, [&](std::int64_t begin, std::int64_t end) {
        // The argument of g is taken again into δ's own memory, row by row before it is overwritten.
        if (recompute) forward_rows(arguments, packed, out.delta, begin, end, true);
        delta_rows(arguments, gradient, recompute ? Rows<T>(out.delta) : a, out.delta, begin, end);
        for (std::size_t s = 0; s < arguments.sources.size(); ++s)
            source_rows(arguments, s, transposed, out.delta, out.sources[s], begin, end);
    });
    weight_gradients(arguments, out, threads);
}

template void residual_forward(const ResidualArguments<float>&, MutableRows<float>);
template void residual_forward(const ResidualArguments<double>&, MutableRows<double>);
template void residual_backward(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                const ResidualGradients<float>&);
template void residual_backward(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                const ResidualGradients<double>&);

}  // namespace resnetcore

#include "functional/residual.h"

#include <algorithm>
#include <new>
#include <optional>
#include <string>

#include "base/error.h"
#include "kernels/select.h"
#include "math/activation.h"
#include "math/optimizer.h"
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
const KernelTable<T>& kernels_of(const ResidualArguments<T>& arguments) {
    return arguments.device->template kernels<T>();
}

// A device that is not the host takes all rows at once, and all panels.
template <class T>
int team_size(const ResidualArguments<T>& arguments) {
    const bool one = !arguments.device->is_host() || multiplications(arguments) < worth_waking;
    return one ? 1 : get_num_threads();
}
template <class T>
std::int64_t tile_height(const ResidualArguments<T>& arguments, int threads) {
    const std::int64_t most = arguments.device->is_host() ? 256 : INT64_MAX;
    return std::clamp<std::int64_t>((arguments.rows + threads - 1) / threads, 1, most);
}
template <class T>
std::int64_t panels_of_a_unit(const ResidualArguments<T>& arguments, std::int64_t panels, int threads) {
    if (!arguments.device->is_host()) return panels;
    // What is done to the rows of A is done once for all panels of a unit; but all threads must have some units.
    return std::clamp<std::int64_t>(panels * static_cast<std::int64_t>(arguments.sources.size()) / 4 / threads, 1, 4);
}

// Rows as they are computed with: themselves where they are stored so, else copied to `room`.
template <class T>
Rows<Compute<T>> widened(const KernelTable<T>& kernels, std::int64_t rows, std::int64_t columns, Rows<T> from,
                         AlignedArray<Compute<T>>& room) {
    if constexpr (computes_itself<T>) return from;
    room.reserve(rows * columns);
    kernels.widen(rows, columns, from, {room.data(), columns});
    return {room.data(), columns};
}

template <class T>
using PackedWeights = std::vector<AlignedArray<T>>;

// Operands of products with the weights, or with their transposes.
template <class T>
PackedWeights<T> pack_all(const ResidualArguments<T>& arguments, bool transposed) {
    const KernelTable<T>& kernels = kernels_of(arguments);
    PackedWeights<T> packed;
    AlignedArray<Compute<T>> room(*arguments.device);
    for (const Matrix<T>& w : arguments.weights) {
        check_copyable(w.rows, w.columns);
        packed.emplace_back(*arguments.device, transposed ? operand_size(kernels, w.columns, w.rows)
                                                          : operand_size(kernels, w.rows, w.columns));
        const std::int64_t rows = w.stored_rows(), columns = w.stored_columns();
        // What packs Wᵀ of W packs W of Wᵀ.
        const auto pack = transposed == w.is_transposed ? kernels.pack_operand : kernels.pack_transposed;
        pack(rows, columns, widened(kernels, rows, columns, Rows<T>{w.data, w.stride}, room), packed.back().data());
    }
    return packed;
}

template <class T>
Rows<T> rows_from(const Matrix<T>& m, std::int64_t row) {
    return rows_from(Rows<T>{m.data, m.stride}, row);
}

// What every tile of the forward pass reads beside its rows.
template <class T>
struct ForwardOperands {
    PackedWeights<T> weights;
    AlignedArray<Compute<T>> room;
    const Compute<T>* bias = nullptr;

    explicit ForwardOperands(const ResidualArguments<T>& arguments)
        : weights(pack_all(arguments, false)), room(*arguments.device) {
        const std::int64_t n = arguments.columns;
        if (arguments.bias) bias = widened(kernels_of(arguments), 1, n, Rows<T>{arguments.bias, n}, room).data;
    }
};

// `args` says which activation, and where the result goes.
template <class T>
void forward_rows(const ResidualArguments<T>& arguments, const ForwardOperands<T>& operands, ForwardArgs<T> args,
                  std::int64_t begin, std::int64_t end) {
    std::vector<Source<T>> sources;
    std::vector<Rows<T>> identity;
    sources.reserve(arguments.sources.size());
    identity.reserve(arguments.identity.size());
    for (std::size_t s = 0; s < arguments.sources.size(); ++s)
        sources.push_back(
            {rows_from(arguments.sources[s], begin), operands.weights[s].data(), arguments.sources[s].columns});
    for (const Matrix<T>& term : arguments.identity) identity.push_back(rows_from(term, begin));
    args.rows = end - begin;
    args.columns = arguments.columns;
    args.sources = sources.data();
    args.n_sources = static_cast<int>(sources.size());
    args.bias = operands.bias;
    args.identity = identity.data();
    args.n_identity = static_cast<int>(identity.size());
    kernels_of(arguments).forward(args);
}

// body(rank, begin, end)
template <class T, class Body>
void for_row_tiles(const ResidualArguments<T>& arguments, int threads, Body body) {
    const std::int64_t rows = arguments.rows, height = tile_height(arguments, threads);
    WorkQueue queue;
    queue.reserve(threads);
    queue.reset((rows + height - 1) / height, threads);
    run_on_team(
        [&](Team& team) {
            std::int64_t tile;
            while (queue.take(team.rank(), tile)) body(team.rank(), tile * height, std::min((tile + 1) * height, rows));
        },
        threads);
}

// One thread's tiles of ∂E/∂a and of δ as they are computed with; empty where that is how they are stored.
template <class T>
struct DeltaRoom {
    explicit DeltaRoom(Device& device) : gradient(device), delta(device) {}
    AlignedArray<Compute<T>> gradient, delta;
};

// δ = ∂E/∂a ⊙ g′, from the output, or where the derivative needs it (`again`) from the argument, which is taken again.
template <class T>
void delta_rows(const ResidualArguments<T>& arguments, const ForwardOperands<T>* again, Rows<T> gradient, Rows<T> a,
                MutableRows<T> out, DeltaRoom<T>& room, std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = end - begin, columns = arguments.columns;
    MutableRows<Compute<T>> delta;
    ForwardArgs<T> argument;
    argument.activation = find_activation("identity");
    if constexpr (computes_itself<T>) {
        delta = argument.out = rows_from(out, begin);
    } else {
        room.delta.reserve(rows * columns);
        delta = argument.wide = {room.delta.data(), columns};
    }
    // What g′ is taken of may lie in δ's own memory: it is read, element by element, before it is overwritten.
    if (again) forward_rows(arguments, *again, argument, begin, end);
    const KernelTable<T>& kernels = kernels_of(arguments);
    const Rows<Compute<T>> incoming = widened(kernels, rows, columns, rows_from(gradient, begin), room.gradient);
    BackwardDataArgs<Compute<T>> args;
    args.rows = rows;
    args.columns = columns;
    args.identity = &incoming;
    args.n_identity = 1;
    args.activation = arguments.activation;
    args.saved = again ? delta : widened(kernels, rows, columns, rows_from(a, begin), room.delta);
    args.saved_is_argument = again != nullptr;
    args.out = delta;
    arguments.device->template kernels<Compute<T>>().backward_data(args);
    if constexpr (!computes_itself<T>) kernels.narrow(rows, columns, delta, rows_from(out, begin), nullptr);
}

template <class T>
void source_rows(const ResidualArguments<T>& arguments, std::size_t s, const PackedWeights<T>& transposed,
                 MutableRows<T> delta, MutableRows<T> out, std::int64_t begin, std::int64_t end) {
    const Source<T> source{rows_from(delta, begin), transposed[s].data(), arguments.columns};
    BackwardDataArgs<T> args;
    args.rows = end - begin;
    args.columns = arguments.sources[s].columns;
    args.sources = &source;
    args.n_sources = 1;
    args.out = rows_from(out, begin);
    kernels_of(arguments).backward_data(args);
}

template <class T>
void weight_gradients(const ResidualArguments<T>& arguments, const ResidualGradients<T>& out, int threads) {
    const KernelTable<T>& table = kernels_of(arguments);
    Device& device = *arguments.device;
    const std::int64_t panels = panel_count(arguments.columns, table.panel);
    const auto n = static_cast<std::int64_t>(arguments.sources.size());
    // The kernel takes the place of what is there with its first row.
    if (out.bias && arguments.rows == 0)
        device.clear(out.bias, static_cast<std::size_t>(arguments.columns) * sizeof(Compute<T>));
    std::int64_t room = 0;
    std::vector<AlignedArray<Compute<T>>> packed;
    for (const Matrix<T>& w : arguments.weights) {
        packed.emplace_back(device, packed_size(w.rows, w.columns, table.panel));
        room = std::max(room, table.stretch_room(arguments.rows, w.rows));
    }
    std::vector<AlignedArray<T>> rooms;
    rooms.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) rooms.emplace_back(device, room);
    const std::int64_t of_a_unit = panels_of_a_unit(arguments, panels, threads);
    const std::int64_t units = (panels + of_a_unit - 1) / of_a_unit;
    WorkQueue queue;
    queue.reserve(threads);
    queue.reset(units * n, threads);
    run_on_team(
        [&](Team& team) {
            std::int64_t unit;
            while (queue.take(team.rank(), unit)) {
                const std::size_t s = static_cast<std::size_t>(unit / units);
                const Matrix<T>& a = arguments.sources[s];
                BackwardWeightsArgs<T> args;
                args.rows = arguments.rows;
                args.inner = a.columns;
                args.columns = arguments.columns;
                args.first_panel = unit % units * of_a_unit;
                args.last_panel = std::min(args.first_panel + of_a_unit, panels);
                args.a = {a.data, a.stride};
                args.delta = out.delta;
                args.gradient = packed[s].data();
                args.has_bias = out.bias && s == 0;
                args.bias_gradient = out.bias;
                args.room = rooms[team.rank()].data();
                table.backward_weights(args);
            }
        },
        threads);
    for (std::size_t s = 0; s < out.weights.size(); ++s)
        table.unpack(arguments.weights[s].rows, arguments.columns, packed[s].data(), out.weights[s]);
}

}  // namespace

void check_copyable(std::int64_t rows, std::int64_t columns) {
    constexpr double most_elements = 0x1p52;
    if (static_cast<double>(rows) * static_cast<double>(columns) > most_elements) throw std::bad_alloc();
}

template <class T>
void check_fits(const ResidualArguments<T>& arguments, const char* operation) {
    const Device& device = *arguments.device;
    const std::string where = std::string(operation) + ": device \"" + device.name() + "\" ";
    std::int64_t widest = arguments.columns;
    for (const Matrix<T>& source : arguments.sources) widest = std::max(widest, source.columns);
    if (widest > device.max_columns())
        throw DeviceError(where + "takes widths of at most " + std::to_string(device.max_columns()) + ", got " +
                          std::to_string(widest) + "; compute it on the CPU");
    const auto most = static_cast<std::size_t>(kernels_of(arguments).max_terms);
    const std::size_t terms = std::max(arguments.sources.size(), arguments.identity.size());
    if (most > 0 && terms > most)
        throw DeviceError(where + "adds at most " + std::to_string(most) + " sources or identities, got " +
                          std::to_string(terms) + "; compute it on the CPU");
}

template <class T>
void residual_forward(const ResidualArguments<T>& arguments, MutableRows<T> out, MutableRows<Compute<T>> wide) {
    const ForwardOperands<T> operands(arguments);
    for_row_tiles(arguments, team_size(arguments), [&](int, std::int64_t begin, std::int64_t end) {
        ForwardArgs<T> args;
        args.activation = arguments.activation;
        args.out = rows_from(out, begin);
        args.wide = rows_from(wide, begin);
        forward_rows(arguments, operands, args, begin, end);
    });
}

template <class T>
void residual_backward(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                       const ResidualGradients<T>& out) {
    const int threads = team_size(arguments);
    PackedWeights<T> transposed;
    if (!out.sources.empty()) transposed = pack_all(arguments, true);
    std::optional<ForwardOperands<T>> again;
    if (activation_needs_argument(arguments.activation)) again.emplace(arguments);
    std::vector<DeltaRoom<T>> rooms;
    rooms.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) rooms.emplace_back(*arguments.device);
    for_row_tiles(arguments, threads, [&](int rank, std::int64_t begin, std::int64_t end) {
        delta_rows(arguments, again ? &*again : nullptr, gradient, a, out.delta, rooms[rank], begin, end);
        for (std::size_t s = 0; s < out.sources.size(); ++s)
            source_rows(arguments, s, transposed, out.delta, out.sources[s], begin, end);
    });
    if (out.bias || !out.weights.empty()) weight_gradients(arguments, out, threads);
}

template <class T>
void descend(const Strided<T>& w, const Compute<T>* gradient, double lr) {
    Hyper<Compute<T>> hyper;
    hyper.lr = static_cast<Compute<T>>(lr);
    for (std::int64_t i = 0; i < w.rows; ++i)
        for (std::int64_t j = 0; j < w.columns; ++j) {
            T& at = w.data[i * w.row_stride + j * w.column_stride];
            Compute<T> unused = 0;
            const auto step = [&](Compute<T> from) {
                return Sgd::apply(from, gradient[i * w.columns + j], unused, unused, hyper);
            };
            if constexpr (computes_itself<T>)
                at = step(at);
            else
                at = to_bfloat16(step(to_float(at)));
        }
}

template void check_fits(const ResidualArguments<float>&, const char*);
template void check_fits(const ResidualArguments<double>&, const char*);
template void check_fits(const ResidualArguments<bfloat16>&, const char*);
template void residual_forward(const ResidualArguments<float>&, MutableRows<float>, MutableRows<float>);
template void residual_forward(const ResidualArguments<double>&, MutableRows<double>, MutableRows<double>);
template void residual_forward(const ResidualArguments<bfloat16>&, MutableRows<bfloat16>, MutableRows<float>);
template void residual_backward(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                const ResidualGradients<float>&);
template void residual_backward(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                const ResidualGradients<double>&);
template void residual_backward(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                const ResidualGradients<bfloat16>&);
template void descend(const Strided<float>&, const float*, double);
template void descend(const Strided<double>&, const double*, double);
template void descend(const Strided<bfloat16>&, const float*, double);

}  // namespace resnetcore

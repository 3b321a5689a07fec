#include "runtime/cost_model.h"

#include <sstream>

#include "kernels/ops.h"
#include "runtime/caches.h"

namespace resnetcore {
namespace {

// By layer, what a thread's rows have, activations and δ, is written and comes back for other products: each as often
// as products read it, besides once. By tile, the gradients of all weights are summed in memory, and an update of its
// own follows; that they are read and written for every tile as well shows little, as they are foreseen.
struct Costs {
    std::int64_t tiles, turns;           // of gradient_stretch rows, and how many of them a thread takes
    std::int64_t batch;                  // bytes of the batch's activations and δ
    std::int64_t weights;                // bytes of W, Wᵀ, and a gradient read and written
    std::int64_t activations;            // bytes of the activations, and of what a norm keeps beside them
    std::int64_t thread_rows;            // of the batch, at most
    std::int64_t weights_of_activation;  // how many there are for each activation of a row: about a layer's width
    std::int64_t gradients;              // bytes of all weights' gradients, each of four at least
    std::int64_t coming_back;            // bytes that come back to a thread, weighed so that the two compare
    std::int64_t last_cache;

    explicit Costs(const StepShape& shape)
        : tiles((shape.rows + gradient_stretch - 1) / gradient_stretch),
          turns((tiles + shape.threads - 1) / shape.threads),
          batch(2 * shape.rows * shape.row_width * shape.element_size),
          weights(4 * shape.weights * shape.element_size),
          activations(3 * shape.rows * shape.row_width * shape.element_size),
          thread_rows((shape.rows + shape.threads - 1) / shape.threads),
          weights_of_activation(shape.weights / std::max<std::int64_t>(shape.row_width, 1)),
          gradients(shape.weights * std::max<std::int64_t>(shape.element_size, sizeof(float))),
          coming_back(3 * thread_rows * (3 * shape.row_width + shape.read_width) / 4 * shape.element_size),
          last_cache(caches().last) {}
};

std::string megabytes(std::int64_t bytes) {
    std::ostringstream out;
    out.precision(3);
    out << static_cast<double>(bytes) / (1 << 20) << " MiB";
    return out.str();
}

// Norms part forward from backward by barriers: a tile's activations are not in its own cache any more, at best in the
// last, and what the tile still saves is that a narrow layer's δ come back. With large batches it was ahead up to a
// width of 256 on Zen 5, and up to 128 on an Intel whose last cache holds all activations; behind from there on.
//
// A phase has the weights of one layer, mostly, to which its tiles add in turns: that takes about as long as what they
// do beside it, so a third thread should find no turn. This is reasoned: only two were there to measure with.
Choice with_norms(const StepShape& shape, const Costs& cost) {
    constexpr int most_in_turns = 2;
    if (shape.threads > most_in_turns)
        return {Strategy::by_layer, shape.threads,
                "batch normalisation parts the layers by barriers, between which more threads would wait for their "
                "turns at one weight"};
    if (cost.activations >= cost.last_cache && cost.weights_of_activation <= 3 * gradient_stretch)
        return {Strategy::by_tile, shape.threads,
                "batch normalisation stores more activations than the last cache holds"};
    if (cost.weights_of_activation < 3 * gradient_stretch / 2 && 2 * cost.weights_of_activation <= cost.thread_rows)
        return {Strategy::by_tile, shape.threads,
                "batch normalisation stores every activation, but the gradients of all weights are small beside them"};
    return {Strategy::by_layer, shape.threads,
            "batch normalisation stores every activation, so that a tile's are not in its cache any more"};
}

}  // namespace

// Where all weights stay in the second-level cache, short tiles keep the activations there too. Where they do not,
// every tile streams them once, and is as tall as half of that cache allows for one activation.
Tile cheapest_tile(std::int64_t rows, std::int64_t weight_bytes, std::int64_t widest_row_bytes, int threads,
                   std::int64_t multiple) {
    const std::int64_t level2 = caches().level2;
    const bool weights_stay = weight_bytes <= level2;
    std::int64_t target = weights_stay ? 128 : std::clamp<std::int64_t>(level2 / 2 / widest_row_bytes, 64, 512);
    const std::int64_t share = (rows + threads - 1) / threads;
    const char* reason = share < target ? "every thread has one"
                         : weights_stay ? "the weights stay in the second-level cache, and the activations with them"
                                        : "the weights are read once a tile, and half of the second-level cache holds "
                                          "the widest activation";
    target = std::min(target, share);
    // Equal tiles, so that no thread is left with one more than the others.
    std::int64_t tiles = (rows + target - 1) / target;
    tiles = (tiles + threads - 1) / threads * threads;
    const std::int64_t equal = (rows + tiles - 1) / tiles;
    return {std::max<std::int64_t>((equal + multiple - 1) / multiple * multiple, 1), reason};
}

// Measured (docs/performance.md, "Two ways to the weight gradient"): on Zen 5, and in three precisions on an Intel with
// AMX.
Choice cheapest_strategy(const StepShape& shape) {
    const Costs cost(shape);
    // Tiles cannot be smaller, so that some rows keep one thread busy while the others wait.
    if (6 * shape.rows < 5 * cost.turns * shape.threads * gradient_stretch)
        return {Strategy::by_layer, shape.threads, "too few tiles of rows to keep the threads busy"};
    if (!shape.one_phase) return with_norms(shape, cost);
    if (cost.batch > 2 * cost.last_cache && cost.batch >= cost.weights)
        return {Strategy::by_tile, shape.threads, "a batch's activations would go to memory and back"};
    if (cost.gradients > cost.coming_back)
        return {Strategy::by_layer, shape.threads,
                "the gradients of all weights, summed in memory, cost more than storing every activation"};
    return {Strategy::by_tile, shape.threads,
            "the gradients of all weights, summed in memory, cost less than storing every activation"};
}

std::string costs(const StepShape& shape) {
    const Costs cost(shape);
    std::ostringstream out;
    out << "tiles of " << gradient_stretch << " rows: " << cost.tiles << ", " << cost.turns << " for each thread\n"
        << "activations and gradients of the batch: " << megabytes(cost.batch) << ", of the last cache's "
        << megabytes(cost.last_cache) << "\n"
        << "parameters, their transposes and gradients, read and written for a tile: " << megabytes(cost.weights)
        << "\n";
    if (shape.one_phase)
        out << "gradients, summed for all tiles: " << megabytes(cost.gradients)
            << ", against activations and their gradients that come back to a thread: " << megabytes(cost.coming_back);
    else
        out << "activations, and what norms keep beside them: " << megabytes(cost.activations)
            << "\nweights for each activation of a row: " << cost.weights_of_activation
            << ", rows of a thread: " << cost.thread_rows;
    return out.str();
}

}  // namespace resnetcore

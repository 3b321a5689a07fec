#include "runtime/cost_model.h"

#include <sstream>

#include "kernels/ops.h"
#include "runtime/caches.h"

namespace resnetcore {
namespace {

// By layer, every activation and δ of the batch is written and read again, from wherever it has gone meanwhile. By
// tile, the gradients of all weights are read and written for every tile of `gradient_stretch` rows.
struct Costs {
    std::int64_t tiles, turns;  // of gradient_stretch rows, and how many of them a thread takes
    std::int64_t batch;         // bytes of the batch's activations and δ
    std::int64_t weights;       // bytes of W, Wᵀ, and a gradient read and written
    std::int64_t activations;   // bytes of the activations, and of what a norm keeps beside them
    std::int64_t some_tiles;    // elements of the activations of three tiles, to compare with the weights' elements
    std::int64_t last_cache;

    explicit Costs(const StepShape& shape)
        : tiles((shape.rows + gradient_stretch - 1) / gradient_stretch),
          turns((tiles + shape.threads - 1) / shape.threads),
          batch(2 * shape.rows * shape.row_width * shape.element_size),
          weights(4 * shape.weights * shape.element_size),
          activations(3 * shape.rows * shape.row_width * shape.element_size),
          some_tiles(3 * gradient_stretch * shape.row_width),
          last_cache(caches().last) {}
};

std::string megabytes(std::int64_t bytes) {
    std::ostringstream out;
    out.precision(3);
    out << static_cast<double>(bytes) / (1 << 20) << " MiB";
    return out.str();
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

// Measured on Zen 5 (docs/performance.md): the two ways are equal at a width of 512 in chains of equal layers, the tile
// 1.2 times faster at 256, and faster at any width where a batch is larger than the last cache.
Choice cheapest_strategy(const StepShape& shape) {
    const Costs cost(shape);
    // Tiles cannot be smaller, so that some rows keep one thread busy while the others wait.
    if (6 * shape.rows < 5 * cost.turns * shape.threads * gradient_stretch)
        return {Strategy::by_layer, shape.threads, "too few tiles of rows to keep the threads busy"};
    if (shape.one_phase && cost.batch > 2 * cost.last_cache && cost.batch >= cost.weights)
        return {Strategy::by_tile, shape.threads, "a batch's activations would go to memory and back"};
    if (shape.weights > cost.some_tiles)
        return {Strategy::by_layer, shape.threads,
                "the gradients of all weights, added to for every tile, cost more than storing every activation"};
    // Barriers part forward from backward: a tile's activations are not in its own cache any more, at best in the last.
    if (!shape.one_phase && cost.activations < cost.last_cache)
        return {Strategy::by_layer, shape.threads,
                "batch normalisation stores every activation, and they fit into the last cache"};
    return {Strategy::by_tile, shape.threads,
            "the gradients of all weights, added to for every tile, cost less than storing every activation"};
}

std::string costs(const StepShape& shape) {
    const Costs cost(shape);
    std::ostringstream out;
    out << "tiles of " << gradient_stretch << " rows: " << cost.tiles << ", " << cost.turns << " for each thread\n"
        << "activations and gradients of the batch: " << megabytes(cost.batch) << ", of the last cache's "
        << megabytes(cost.last_cache) << "\n"
        << "parameters, their transposes and gradients, read and written for a tile: " << megabytes(cost.weights)
        << "\n"
        << "elements of the parameters: " << shape.weights
        << ", of the activations of three tiles: " << cost.some_tiles;
    return out.str();
}

}  // namespace resnetcore

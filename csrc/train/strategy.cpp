#include "train/strategy.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

#include "base/error.h"
#include "kernels/ops.h"
#include "runtime/caches.h"
#include "runtime/fork_safe_mutex.h"

namespace resnetcore {
namespace {

const char* const names[] = {"by_layer", "by_tile", "auto"};
constexpr int automatic = 2;

int index_of(const std::string& name) {
    for (int i = 0; i < 3; ++i)
        if (name == names[i]) return i;
    throw ValueError("strategy must be \"auto\", \"by_layer\" or \"by_tile\", got \"" + name + "\"");
}

std::atomic<int>& forced() {
    static std::atomic<int> value{[] {
        const char* given = std::getenv("RESNETCORE_STRATEGY");
        return given && *given ? index_of(given) : automatic;
    }()};
    return value;
}

using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, int>;
Key key(const StepShape& s) { return {s.rows, s.weights, s.row_width, s.element_size, s.one_phase, s.threads}; }

struct Tuned {
    ForkSafeMutex mutex;
    std::map<Key, Choice> choices;
};
Tuned& tuned() {
    static Tuned all;
    return all;
}

// The cost model, in elements moved for each row beyond the first use of its activations. By layer, every activation
// and δ of the batch is written and read again, from wherever they have gone meanwhile. By tile, the weights' gradients
// are read and written for every tile. Measured on Zen 5 (docs/performance.md): equal at a width of 512 in chains of
// equal layers, 1.2 times in favour of the tile at 256, and at any width where a batch is larger than the last cache.
Choice by_cost(const StepShape& shape) {
    const std::int64_t tiles = (shape.rows + gradient_stretch - 1) / gradient_stretch;
    const std::int64_t turns = (tiles + shape.threads - 1) / shape.threads;
    // Tiles cannot be smaller, so that some rows keep one thread busy while the others wait.
    if (6 * shape.rows < 5 * turns * shape.threads * gradient_stretch)
        return {Strategy::by_layer, shape.threads, "too few tiles of rows to keep the threads busy"};
    const std::int64_t last_cache = caches().last;
    const std::int64_t kept = 2 * shape.rows * shape.row_width * shape.element_size;  // activations and δ, by layer
    const std::int64_t moved = 4 * shape.weights * shape.element_size;  // W, Wᵀ, a gradient read and written, by tile
    if (shape.one_phase && kept > 2 * last_cache && kept >= moved)
        return {Strategy::by_tile, shape.threads, "a batch's activations would go to memory and back"};
    if (shape.weights > 3 * gradient_stretch * shape.row_width)
        return {Strategy::by_layer, shape.threads, "the weights are larger than the activations of some tiles"};
    // Barriers part forward from backward: a tile's activations are not in its own cache any more, at best in the last.
    if (!shape.one_phase && 3 * shape.rows * shape.row_width * shape.element_size < last_cache)
        return {Strategy::by_layer, shape.threads,
                "batch normalisation stores every activation, and they fit into the last cache"};
    return {Strategy::by_tile, shape.threads, "a tile's activations are smaller than what the weights cost"};
}

}  // namespace

void remember(const StepShape& shape, Strategy strategy, int threads) {
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    all.choices[key(shape)] = {strategy, threads, "tuned"};
}

Strategy find_strategy(const std::string& name) {
    const int index = index_of(name);
    if (index == automatic) throw ValueError("strategy must be \"by_layer\" or \"by_tile\", got \"auto\"");
    return static_cast<Strategy>(index);
}

void set_strategy(const std::string& name) { forced().store(index_of(name)); }
std::string get_strategy() { return names[forced().load()]; }

Choice choose_strategy(const StepShape& shape) {
    if (!shape.in_tiles) return {Strategy::by_layer, 1, "the device takes all rows at once"};
    const int given = forced().load();
    if (given != automatic) return {static_cast<Strategy>(given), shape.threads, "forced"};
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    const auto found = all.choices.find(key(shape));
    return found == all.choices.end() ? by_cost(shape) : found->second;
}

}  // namespace resnetcore

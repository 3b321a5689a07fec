#include "train/strategy.h"

#include <atomic>
#include <cstdlib>

#include "base/error.h"
#include "kernels/ops.h"

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

}  // namespace

void set_strategy(const std::string& name) { forced().store(index_of(name)); }
std::string get_strategy() { return names[forced().load()]; }

Choice choose_strategy(const StepShape& shape) {
    const int given = forced().load();
    if (given != automatic) return {static_cast<Strategy>(given), "forced"};
    const std::int64_t tiles = (shape.rows + gradient_stretch - 1) / gradient_stretch;
    if (!shape.one_phase) return {Strategy::by_layer, "batch normalisation stores every activation anyway"};
    if (tiles < 2 * static_cast<std::int64_t>(shape.threads))
        return {Strategy::by_layer, "too few tiles of rows for the threads"};
    // Elements moved for each row, beyond the activations' first use: by_layer writes and reads every activation and δ
    // (about 6 of them for each output); by_tile reads both copies of the weights and adds to their gradients, tile by
    // tile.
    const std::int64_t layer_traffic = 6 * shape.row_width, tile_traffic = 4 * shape.weights / gradient_stretch;
    if (tile_traffic > layer_traffic)
        return {Strategy::by_layer, "the weights are larger than the activations of a tile"};
    return {Strategy::by_tile, "a tile's activations are smaller than what the weights cost"};
}

}  // namespace resnetcore

#include "topology/memory.h"

#include <algorithm>

#include "topology/buffers.h"

namespace resnetcore {
namespace {

// Lifetimes count phases where tiles of a phase run at the same time in one arena, and steps where nothing outlives its
// tile.
struct Times {
    int backward = 0, end = 0;  // when the run that reads the gradient begins, and when all is over
};
Times set_lifetimes(Plan& plan, const std::vector<BufferId>& read_afterwards) {
    for (BufferInfo& b : plan.buffers) b.first_use = b.last_use = -1;
    int time = 0;
    Times times;
    for (const Phase& phase : plan.phases) {
        if (&phase == plan.phases.data() + plan.backward_phase) times.backward = time;
        for (const Step& step : phase.steps) {
            const auto use = [&](BufferId id) {
                if (id < 0) return;
                BufferInfo& b = plan.buffers[id];
                if (b.first_use < 0) b.first_use = time;
                b.last_use = time;
            };
            visit_reads(plan, step, use);
            visit_writes(step, use);
            if (plan.tile_local) ++time;
        }
        if (!plan.tile_local) ++time;
    }
    for (BufferId id : read_afterwards)
        if (id >= 0) plan.buffers[id].last_use = time;
    times.end = time;
    return times;
}

}  // namespace

// First fit.
void lay_out(Plan& plan, const std::vector<BufferId>& read_afterwards, const PlanOptions& options) {
    enum class Place { kept, batch, tile };
    const Times times = set_lifetimes(plan, read_afterwards);
    // Where lifetimes count steps, tiles are at different ones at a time: one must not write where another's rows still
    // are, so buffers share memory in a tile's arena alone, and what is kept shares none.
    const auto place_of = [&](const BufferInfo& b) {
        const bool forward = b.first_use < times.backward;
        if (plan.tile_local) return forward && b.last_use >= times.backward ? Place::kept : Place::tile;
        if (options.weights_by_tile && b.first_use == b.last_use) return Place::tile;
        return forward ? Place::kept : Place::batch;
    };
    std::vector<const BufferInfo*> placed;  // by offset
    const auto place = [&](Place where, std::int64_t& elements) {
        const std::int64_t start = elements;
        placed.clear();
        for (std::size_t id = options.stores_input ? 0 : 1; id < plan.buffers.size(); ++id) {
            BufferInfo& mine = plan.buffers[id];
            if (place_of(mine) != where) continue;
            mine.of_tile = where == Place::tile;
            // Backward may run again on what forward left.
            if (where == Place::kept && mine.last_use >= times.backward) mine.last_use = times.end;
            const std::int64_t size = padded_width(mine.width, options.storage);
            mine.offset = start;
            for (const BufferInfo* other : placed) {
                const bool apart = other->last_use < mine.first_use || mine.last_use < other->first_use;
                const std::int64_t end = other->offset + padded_width(other->width, options.storage);
                if (apart || end <= mine.offset) continue;
                if (other->offset >= mine.offset + size) break;
                mine.offset = end;
            }
            elements = std::max(elements, mine.offset + size);
            auto below = [](const BufferInfo* x, const BufferInfo* y) { return x->offset < y->offset; };
            placed.insert(std::upper_bound(placed.begin(), placed.end(), &mine, below), &mine);
        }
    };
    if (times.backward > 0) {
        place(Place::kept, plan.row_elements);
        plan.kept_elements = plan.row_elements;
    }
    place(Place::batch, plan.row_elements);
    place(Place::tile, plan.tile_elements);
}

std::int64_t padded_width(std::int64_t width, Storage storage) {
    constexpr std::int64_t page_part = 512;
    const std::int64_t unit = storage.alignment;
    std::int64_t bytes = (width * storage.element_size + unit - 1) / unit * unit;
    if (bytes % page_part == 0) bytes += unit;
    return bytes / storage.element_size;
}

}  // namespace resnetcore

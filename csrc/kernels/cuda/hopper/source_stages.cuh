// The sources of a sum on Hopper, and how their terms come into the stages of a ring, tile after tile.
#pragma once

#include <limits>

#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/tile.cuh"
#include "kernels/cuda/hopper/tiles.cuh"
#include "kernels/cuda/sources.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr std::int64_t stages_of_terms(std::int64_t terms) { return (terms + stage_terms - 1) / stage_terms; }
template <class Args>
std::int64_t stages_of_sources(const Args& args) {
    std::int64_t steps = 0;
    for (int s = 0; s < args.n_sources; ++s) steps += stages_of_terms(args.sources[s].inner);
    return steps;
}

// Sources that have terms, as copies find them.
template <int most>
struct Maps {
    CUtensorMap rows[most], panels[most];
    std::int32_t steps[most];  // stages that a source's terms take
    std::int32_t count = 0;
    std::int64_t all_steps = 0;

    // For tiles of so many columns. False where a source's rows do not lie as copies need them.
    template <class Args>
    bool encode_sources(const Args& args, int width) {
        for (int s = 0; s < args.n_sources; ++s) {
            const Source<bfloat16>& source = args.sources[s];
            if (source.inner <= 0) continue;
            if (source.inner > std::numeric_limits<std::int32_t>::max() - stage_terms ||
                !encode(rows[count], source.rows, args.rows, source.inner, tile_rows) ||
                !encode_panels(panels[count], source.panels, source.inner, args.columns, stage_terms,
                               width / panel_width))
                return false;
            steps[count] = static_cast<std::int32_t>(stages_of_terms(source.inner));
            all_steps += steps[count++];
        }
        return true;
    }
};

// Of a stage: 128 rows of 64 terms, then panels of 64 terms.
struct SourceOperands {
    static constexpr bool a_along_rows = false, b_along_columns = true;
    Shared first_row;
    __device__ __forceinline__ std::uint64_t a(Shared stage, std::int64_t, int product) const {
        return along_terms(stage + first_row, product);
    }
    __device__ __forceinline__ std::uint64_t b(Shared stage, int product) const {
        return across_terms(stage + 2 * box_bytes, product, box_bytes);
    }
};

template <class Ring, int most, int width>
__device__ __forceinline__ void fill_stages(const Ring& ring, const Maps<most>& maps, Tiles<width> tiles) {
    for (Place place; tiles.exists(); tiles.advance()) {
        const std::int32_t row = static_cast<std::int32_t>(tiles.first_row());
        const std::int32_t panel = static_cast<std::int32_t>(tiles.first_column() / panel_width);
        for (int source = 0; source < maps.count; ++source)
            for (std::int32_t step = 0; step < maps.steps[source]; ++step, ring.advance(place)) {
                const Shared stage = ring.begin_filling(place);
                copy_box(stage, maps.rows[source], step * stage_terms, row, ring.full(place));
                copy_box(stage + 2 * box_bytes, maps.panels[source], 0, step * stage_terms, panel, ring.full(place));
            }
    }
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// The end of gradients: what becomes of a tile's sums, which are a part, or are kept, or the optimizer runs on them;
// and of gradients that were taken in parts, once those are added.
//
// Invariant: parts, and of a bias the shares of each, are added in order: lanes of threads have neighbouring parts
// each, and then the lanes' sums are. A block owns eight rows of W in one panel, which are whole rows of 16 bytes of
// the transpose: no block writes what another does.
#pragma once

#include <algorithm>

#include "kernels/cuda/gradient_parts.cuh"
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {

// By all threads of a block that has the tile's sums of one part: `sums` has get(row, column) and set(row, column, x).
template <class T, class Sums>
__device__ __forceinline__ void finish_tile(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts,
                                            int part, const WeightTile<T>& tile, const Sums& sums) {
    if (parts.is_divided())
        for_tile([&](int row, int column) {
            if (tile.has_row(row))
                *parts.weight_at(part, tile.panel, tile.first_row + row, column) = sums.get(row, column);
        });
    else if (args.gradient)
        for_tile([&](int row, int column) {
            if (tile.has_row(row)) args.gradient[tile.at(row, column)] = sums.get(row, column);
        });
    else
        update_tile(tile, sums, args.weight, args.operands, args.optimizer, *args.weight_hyper);
}

constexpr int finish_rows = 8, finish_width = 4;  // rows of W a block; neighbours a thread
constexpr int finish_threads = finish_rows * panel_width / finish_width, finish_lanes = 4;

// That a weight's parts take; none where there is one part, which is finished where it is summed.
template <class C>
RC_HD std::int64_t finish_blocks(const GradientParts<C>& parts) {
    return parts.is_divided() ? (parts.inner + finish_rows - 1) / finish_rows : 0;
}

// Of the parts in order, by lanes: in the first lane's threads, the sum of n neighbours.
template <int n, class C>
__device__ __forceinline__ Stretch<C, n> add_parts(const C* first, std::int64_t apart, int count, int lane, int lanes,
                                                   C* memory, int place) {
    constexpr int together = 4;  // parts that are asked for before the first is added
    Stretch<C, n> sum = {};
    const int end = count * (lane + 1) / lanes;
    for (int part = count * lane / lanes; part < end; part += together) {
        Stretch<C, n> some[together];
#pragma unroll
        for (int i = 0; i < together; ++i)
            if (part + i < end) some[i] = read<n>(first + (part + i) * apart);
#pragma unroll
        for (int i = 0; i < together; ++i)
            if (part + i < end) each(sum, Plus(), some[i]);
    }
    const int all = static_cast<int>(blockDim.x) / lanes * n;
#pragma unroll
    for (int c = 0; c < n; ++c) memory[lane * all + place * n + c] = sum.at[c];
    __syncthreads();
    if (lane == 0)
        for (int other = 1; other < lanes; ++other)
#pragma unroll
            for (int c = 0; c < n; ++c) sum.at[c] = sum.at[c] + memory[other * all + place * n + c];
    __syncthreads();
    return sum;
}

// `memory`: for every thread of the block finish_width numbers, and eight more.
template <class T>
__device__ __forceinline__ void finish_weight(const BackwardWeightsArgs<T>& args,
                                              const GradientParts<Compute<T>>& parts, Compute<T>* memory) {
    using C = Compute<T>;
    constexpr int across = panel_width / finish_width, pitch = panel_width + 1;
    const int thread = static_cast<int>(threadIdx.x) % finish_threads,
              lane = static_cast<int>(threadIdx.x) / finish_threads,
              lanes = static_cast<int>(blockDim.x) / finish_threads;
    const int row = thread / across, column = thread % across * finish_width;
    const std::int64_t panel = args.first_panel + blockIdx.y, first = std::int64_t{blockIdx.x} * finish_rows,
                       i = first + row;
    const bool exists = i < args.inner;
    Stretch<C, finish_width> x = add_parts<finish_width>(parts.weight_at(0, panel, exists ? i : first, column),
                                                         parts.part_size(), parts.count, lane, lanes, memory, thread);
    const std::int64_t at = (panel * args.inner + i) * panel_width + column;
    if (lane == 0 && exists) {
        // What A has of NaN and infinity makes NaN of a zero beside it.
#pragma unroll
        for (int c = 0; c < finish_width; ++c)
            if (panel * panel_width + column + c >= args.columns) x.at[c] = 0;
        if (args.gradient) {
            if (args.accumulate) each(x, Plus(), read<finish_width>(args.gradient + at));
            write(x, args.gradient + at);
        } else {
            visit_type(args.optimizer, Optimizers{},
                       [&](auto rule) { x = update_stretch<decltype(rule)>(args.weight, at, x, *args.weight_hyper); });
            if constexpr (!computes_itself<T>)
                write(x, args.operands.panels + (panel * operand_rows<T>(args.inner) + i) * panel_width + column);
        }
    }
    if (args.gradient) return;
    if (lane == 0)
#pragma unroll
        for (int c = 0; c < finish_width; ++c) memory[row * pitch + column + c] = exists ? x.at[c] : C(0);
    __syncthreads();
    // Rows that W does not have are the transpose's padding.
    const int across_it = thread % panel_width, begin = thread / panel_width * finish_width;
    if (lane > 0 || panel * panel_width + across_it >= args.columns) return;
#pragma unroll
    for (int c = 0; c < finish_width; ++c) x.at[c] = memory[(begin + c) * pitch + across_it];
    const std::int64_t k = first / panel_width * operand_rows<T>(args.columns) + panel * panel_width + across_it;
    write(x, args.operands.transposed + k * panel_width + first % panel_width + begin);
}

template <class T>
__device__ __forceinline__ void finish_bias(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts,
                                            Compute<T>* memory) {
    using C = Compute<T>;
    const int column = static_cast<int>(threadIdx.x) % panel_width, lane = static_cast<int>(threadIdx.x) / panel_width,
              lanes = static_cast<int>(blockDim.x) / panel_width;
    const std::int64_t panel = args.first_panel + blockIdx.y, j = panel * panel_width + column;
    C total = add_parts<1>(parts.bias_at(0, 0, panel, column), parts.panels * panel_width,
                           parts.count * parts.bias_shares, lane, lanes, memory, column)
                  .at[0];
    if (lane > 0 || j >= args.columns) return;
    if (args.gradient) {
        args.bias_gradient[j] = args.accumulate ? args.bias_gradient[j] + total : total;
    } else {
        visit_type(args.optimizer, Optimizers{},
                   [&](auto rule) { update_element<decltype(rule)>(args.bias, j, total, *args.bias_hyper); });
    }
}

// Blocks: for eight rows of W each, then one for the bias; for a panel; for a weight of the group.
template <class T>
__global__ void __launch_bounds__(finish_lanes* finish_threads)
    finish_kernel(const __grid_constant__ WeightGroup<T> group) {
    __shared__ Compute<T> memory[finish_lanes * finish_threads * finish_width + finish_rows];
    const BackwardWeightsArgs<T>& args = group.calls[blockIdx.z];
    const GradientParts<Compute<T>>& parts = group.parts[blockIdx.z];
    const std::int64_t weight_blocks = finish_blocks(parts);
    if (blockIdx.y >= parts.panels || blockIdx.x > weight_blocks) return;
    if (!args.gradient && !permits(args.permission)) return;
    if (blockIdx.x < weight_blocks)
        finish_weight(args, parts, memory);
    else if (args.has_bias)
        finish_bias(args, parts, memory);
}

template <class T>
void launch_finish(const WeightGroup<T>& group) {
    std::int64_t blocks = 0, panels = 0;
    for (int m = 0; m < group.count; ++m) {
        const std::int64_t of_weight = finish_blocks(group.parts[m]);
        blocks = std::max<std::int64_t>(blocks, of_weight + (group.calls[m].has_bias ? 1 : 0));
        panels = std::max(panels, group.parts[m].panels);
    }
    if (blocks == 0 || panels == 0) return;
    constexpr int many = 16;  // parts, for which it pays that lanes share them
    launch<finish_kernel<T>>(
        dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(panels), static_cast<unsigned>(group.count)),
        finish_threads * (group.parts[0].count < many ? 1 : finish_lanes), group);
}

}  // namespace cuda
}  // namespace resnetcore

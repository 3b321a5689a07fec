// The end of a gradient that was taken in parts: their sum, and what becomes of it: it is kept, or the optimizer runs
// on it.
//
// Invariant: parts are added in order: lanes of threads have neighbouring parts each, and then the lanes' sums are. A
// block owns eight rows of W in one panel, which are whole rows of 16 bytes of the transpose: no block writes what
// another does.
#pragma once

#include "kernels/cuda/gradient_parts.cuh"
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {

constexpr int finish_rows = 8, finish_width = 4;  // rows of W a block; neighbours a thread
constexpr int finish_threads = finish_rows * panel_width / finish_width, finish_lanes = 4;

// Of the parts in order, by lanes: in the first lane's threads, the sum of n neighbours.
template <int n, class C>
__device__ __forceinline__ Stretch<C, n> add_parts(const C* first, std::int64_t apart, int count, int lane, int lanes,
                                                   C* memory, int place) {
    Stretch<C, n> sum = {};
    const C* const end = first + count * (lane + 1) / lanes * apart;
#pragma unroll 8
    for (const C* at = first + count * lane / lanes * apart; at < end; at += apart) each(sum, Plus(), read<n>(at));
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
    C total = add_parts<1>(parts.bias_at(0, panel, column), parts.panels * panel_width, parts.count, lane, lanes,
                           memory, column)
                  .at[0];
    if (lane > 0 || j >= args.columns) return;
    if (args.gradient) {
        args.bias_gradient[j] = args.accumulate ? args.bias_gradient[j] + total : total;
    } else {
        visit_type(args.optimizer, Optimizers{},
                   [&](auto rule) { update_element<decltype(rule)>(args.bias, j, total, *args.bias_hyper); });
    }
}

// Blocks across: `weight_blocks` for the rows of W, then one for the bias; a panel each.
template <class T>
__global__ void __launch_bounds__(finish_lanes* finish_threads)
    finish_kernel(const __grid_constant__ BackwardWeightsArgs<T> args,
                  const __grid_constant__ GradientParts<Compute<T>> parts, int weight_blocks) {
    __shared__ Compute<T> memory[finish_lanes * finish_threads * finish_width + finish_rows];
    if (!args.gradient && !permits(args.permission)) return;
    if (static_cast<int>(blockIdx.x) < weight_blocks)
        finish_weight(args, parts, memory);
    else
        finish_bias(args, parts, memory);
}

template <class T>
void launch_finish(const BackwardWeightsArgs<T>& args, const GradientParts<Compute<T>>& parts) {
    const std::int64_t rows = parts.is_divided() ? (args.inner + finish_rows - 1) / finish_rows : 0;
    const dim3 grid(static_cast<unsigned>(rows + args.has_bias), static_cast<unsigned>(parts.panels));
    constexpr int many = 16;  // parts, for which it pays that lanes share them
    if (grid.x > 0)
        launch<finish_kernel<T>>(grid, finish_threads * (parts.count < many ? 1 : finish_lanes), args, parts,
                                 static_cast<int>(rows));
}

}  // namespace cuda
}  // namespace resnetcore

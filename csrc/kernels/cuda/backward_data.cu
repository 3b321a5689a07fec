// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative.
#include "kernels/cuda/sources.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T, int most>
__device__ __forceinline__ void finish(const BackwardDataArgs<T>& args, const Terms<T, most>& terms, Compute<T> g,
                                       std::int64_t i, std::int64_t j) {
    for (int s = 0; s < terms.n_identity; ++s) g = g + read(terms.identity[s], i, j);
    if (args.mask.data) g = g * read(args.mask, i, j);
    visit_type(args.activation, Activations{}, [&](auto activation) {
        using Activation = decltype(activation);
        if constexpr (!std::is_same<Activation, Identity>::value)
            g = g * derivative<Activation>(read(args.saved, i, j), args.saved_is_argument);
    });
    write(g, args.out, i, j);
}

template <class T, int most>
__global__ void __launch_bounds__(tile_threads) backward_data_kernel(const __grid_constant__ BackwardDataArgs<T> args,
                                                                     const __grid_constant__ Terms<T, most> terms) {
    __shared__ TileMemory<T> memory;
    sum_sources(terms, args.rows, memory);
    for_tile([&](int row, int column) {
        const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * tile_size + row;
        const std::int64_t j = static_cast<std::int64_t>(blockIdx.y) * tile_size + column;
        if (i < args.rows && j < args.columns) finish(args, terms, memory.sums[row][column], i, j);
    });
}

}  // namespace

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    launch_sum<T>(args, SumKernels<T, BackwardDataArgs<T>>{backward_data_kernel<T, usual_terms>,
                                                           backward_data_kernel<T, max_terms>});
}

template void backward_data(const BackwardDataArgs<float>&);
template void backward_data(const BackwardDataArgs<double>&);
template void backward_data(const BackwardDataArgs<bfloat16>&);
template void backward_data(const BackwardDataArgs<bfloat16x2>&);

}  // namespace cuda
}  // namespace resnetcore

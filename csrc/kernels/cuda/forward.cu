// residual_forward: sums, then bias, skips, a branch and the activation.
#include "kernels/cuda/sources.cuh"
#include "math/activation.h"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
__device__ __forceinline__ Compute<T> read_branch(const Branch<T>& branch, std::int64_t i, std::int64_t j) {
    Compute<T> z = read(branch.z, i, j);
    if (branch.center) z = normalise(z, branch.center[j], branch.scale[j], branch.shift[j]);
    if (branch.mask.data) z = z * read(branch.mask, i, j);
    return z;
}

template <class T, int most>
__device__ __forceinline__ void finish(const ForwardArgs<T>& args, const Terms<T, most>& terms, Compute<T> z,
                                       std::int64_t i, std::int64_t j) {
    if (args.bias) z = z + args.bias[j];
    for (int s = 0; s < terms.n_identity; ++s) z = z + read(terms.identity[s], i, j);
    if (args.branch.z.data) z = z + read_branch(args.branch, i, j);
    if (args.argument.data) write(z, args.argument, i, j);
    Compute<T> a = z;
    visit_type(args.activation, Activations{}, [&](auto g) { a = decltype(g)::forward(z); });
    if (args.mask.data) a = a * read(args.mask, i, j);
    write_both(a, args.out, args.wide, i, j);
}

template <class T, int most>
__global__ void __launch_bounds__(tile_threads)
    forward_kernel(const __grid_constant__ ForwardArgs<T> args, const __grid_constant__ Terms<T, most> terms) {
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
void forward(const ForwardArgs<T>& args) {
    launch_sum<T>(args, SumKernels<T, ForwardArgs<T>>{forward_kernel<T, usual_terms>, forward_kernel<T, max_terms>});
}

template void forward(const ForwardArgs<float>&);
template void forward(const ForwardArgs<double>&);
template void forward(const ForwardArgs<bfloat16>&);
template void forward(const ForwardArgs<bfloat16x2>&);

}  // namespace cuda
}  // namespace resnetcore

// The optimizer on gradients that were kept.
#include "kernels/cuda/update.cuh"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(tile_threads) update_kernel(const __grid_constant__ UpdateArgs<T> args) {
    __shared__ TileMemory<T> memory;
    if (!permits(args.permission)) return;
    const WeightTile<T> tile = weight_tile<T>(args.inner, args.columns, args.first_panel);
    for_tile([&](int row, int column) {
        if (tile.has_row(row)) memory.sums[row][column] = args.gradient[tile.at(row, column)];
    });
    update_tile(tile, memory, args.weight, args.operands, args.optimizer, *args.hyper);
}

template <class T>
struct UpdateVector {
    UpdateVectorArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        if (!permits(args.permission)) return;
        visit_type(args.optimizer, Optimizers{},
                   [&](auto rule) { update_element<decltype(rule)>(args.slot, j, args.gradient[j], *args.hyper); });
    }
};

}  // namespace

template <class T>
void update(const UpdateArgs<T>& args) {
    const dim3 grid = weight_grid(args.inner, args.first_panel, args.last_panel);
    if (grid.x > 0 && grid.y > 0) launch<update_kernel<T>>(grid, tile_threads, args);
}

template <class T>
void update_vector(const UpdateVectorArgs<T>& args) {
    for_elements(1, args.size, UpdateVector<T>{args});
}

#define RC_INSTANTIATE(T)                       \
    template void update(const UpdateArgs<T>&); \
    template void update_vector(const UpdateVectorArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

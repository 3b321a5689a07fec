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
    update_tile(tile, TileSums<T>{memory}, args.weight, args.operands, args.optimizer, *args.hyper);
}

template <class T>
struct UpdateVectors {
    UpdateVectorsArgs<T> args;
    __device__ void operator()(const UpdatedVector<T>& vector, std::int64_t j) const {
        visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
            update_element<decltype(rule)>(vector.slot, j, vector.gradient[j], *vector.hyper);
        });
    }
};

}  // namespace

template <class T>
void update(const UpdateArgs<T>& args) {
    const dim3 grid = weight_grid(args.inner, args.first_panel, args.last_panel);
    if (grid.x > 0 && grid.y > 0) launch<update_kernel<T>>(grid, tile_threads, args);
}

template <class T>
void update_vectors(const UpdateVectorsArgs<T>& args) {
    for_vectors(UpdateVectors<T>{args});
}

#define RC_INSTANTIATE(T)                       \
    template void update(const UpdateArgs<T>&); \
    template void update_vectors(const UpdateVectorsArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

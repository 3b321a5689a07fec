// Losses: a thread has a whole row, as the formulas do. Short rows come and go by way of shared memory, where a block's
// threads move them side by side.
//
// Invariant: a block has `loss_rows` rows, whose losses it adds pair by pair: their sum follows from the rows alone.
#include "kernels/columns.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int threads = loss_rows;
constexpr int room = 16 << 10;  // bytes of shared memory for rows: all blocks of a large batch can be there at a time

// Element (i, j) of a block's rows, for every thread's share of them; neighbouring threads have neighbours.
template <class Visit>
__device__ __forceinline__ void visit_elements(int rows, int columns, Visit visit) {
    const int rows_on = threads / columns, columns_on = threads % columns;
    int i = static_cast<int>(threadIdx.x) / columns, j = static_cast<int>(threadIdx.x) % columns;
#pragma unroll 4
    for (int at = static_cast<int>(threadIdx.x); at < rows * columns; at += threads) {
        visit(i, j);
        i += rows_on, j += columns_on;
        if (j >= columns) j -= columns, ++i;
    }
}

// Where a block's rows lie while their losses are taken: of logits, of targets where there are any, and of gradients.
template <class T>
class SharedRows {
public:
    using C = Compute<T>;

    // An odd distance, so that the threads' elements lie in different banks.
    RC_HD static std::int64_t distance(std::int64_t columns) { return columns | 1; }
    static bool have_room(const LossArgs<T>& args) {
        const int matrices = 1 + (args.targets.data ? 1 : 0) + (args.gradient.data ? 1 : 0);
        return args.columns <= room / static_cast<int>(sizeof(C)) / threads &&
               matrices * distance(args.columns) * threads * static_cast<std::int64_t>(sizeof(C)) <= room;
    }

    __device__ __forceinline__ SharedRows(C* memory, int columns, int rows)
        : memory_(memory), columns_(columns), rows_(rows) {}

    __device__ __forceinline__ MutableRows<C> take() {
        C* const taken = memory_;
        memory_ += threads * distance(columns_);
        return {taken, distance(columns_)};
    }
    __device__ __forceinline__ Rows<C> load(const Rows<C>& from) {
        const MutableRows<C> to = take();
        visit_elements(rows_, columns_, [&](int i, int j) {
            to.data[i * static_cast<int>(to.stride) + j] = from.data[i * from.stride + j];
        });
        return {to.data, to.stride};
    }

private:
    C* memory_;
    const int columns_, rows_;
};

// The block's rows alone.
template <class T>
__device__ __forceinline__ LossArgs<T> block_rows(LossArgs<T> args) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads;
    const auto skip = [&](auto& rows) {
        if (rows.data) rows.data += first * rows.stride;
    };
    args.rows = args.rows - first < threads ? args.rows - first : threads;
    skip(args.logits), skip(args.targets), skip(args.gradient), skip(args.unrounded);
    if (args.labels) args.labels += first;
    if (args.sample_weight) args.sample_weight += first;
    args.row_loss += first;
    return args;
}

// `is_shared`: whether the rows have room in shared memory.
template <class T, bool is_shared>
__global__ void __launch_bounds__(threads, 8) loss_kernel(const __grid_constant__ LossArgs<T> args) {
    using C = Compute<T>;
    __shared__ C memory[is_shared ? room / sizeof(C) : 1];
    __shared__ double losses[threads];
    LossArgs<T> mine = block_rows(args);
    const MutableRows<T> to = mine.gradient;
    const int rows = static_cast<int>(mine.rows), columns = static_cast<int>(args.columns);
    MutableRows<C> gradient;
    if constexpr (is_shared) {
        SharedRows<T> shared(memory, columns, rows);
        mine.logits = shared.load(mine.logits);
        if (mine.targets.data) mine.targets = shared.load(mine.targets);
        if (mine.gradient.data) {
            gradient = shared.take();
            if constexpr (computes_itself<T>)
                mine.gradient = gradient;
            else
                mine.unrounded = gradient;
        }
        __syncthreads();
    } else {
        if constexpr (computes_itself<T>)
            gradient = mine.gradient;
        else
            gradient = mine.unrounded;
    }

    const int row = static_cast<int>(threadIdx.x);
    double loss = 0;
    if (row < rows) visit_type(args.loss, Losses{}, [&](auto rule) { loss = loss_of_row<decltype(rule)>(mine, row); });
    const double sum = sum_block(loss, losses);  // after which all gradients are there, too
    if (row == 0 && args.loss_sums) args.loss_sums[blockIdx.x] = sum;
    if (!to.data || (!is_shared && computes_itself<T> && !args.largest)) return;

    LargestResult<T> largest;
    const auto leave = [&](std::int64_t i, std::int64_t j) {
        const Stretch<C, 1> x{{gradient.data[i * gradient.stride + j]}};
        if (is_shared || !computes_itself<T>) write<1>(x, to, i, j);
        largest.add(x);
    };
    if constexpr (is_shared)
        visit_elements(rows, columns, leave);
    else
        for (int i = 0; i < rows; ++i)
            for (int j = row; j < columns; j += threads) leave(i, j);
    largest.template keep_of_block<threads>(args.largest);
}

}  // namespace

template <class T>
void loss(const LossArgs<T>& args) {
    const dim3 blocks(static_cast<unsigned>((args.rows + threads - 1) / threads));
    if (args.rows == 0) return;
    if (SharedRows<T>::have_room(args))
        launch<loss_kernel<T, true>>(blocks, threads, args);
    else
        launch<loss_kernel<T, false>>(blocks, threads, args);
}

#define RC_INSTANTIATE(T) template void loss(const LossArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

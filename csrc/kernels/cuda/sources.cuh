// A sum over sources: the lists that a kernel takes as parameters, and the steps through them.
#pragma once

#include "kernels/cuda/product.cuh"

namespace resnetcore {
namespace cuda {

constexpr int usual_terms = 8;  // of nearly every layer; longer lists cost a launch more
static_assert(tile_size == panel_width, "a block's tile is a panel wide");

template <class T, int most>
struct Terms {
    Source<T> sources[most];
    Rows<T> identity[most];
    int n_sources = 0, n_identity = 0;

    template <class Args>
    explicit Terms(const Args& args) : n_sources(args.n_sources), n_identity(args.n_identity) {
        for (int i = 0; i < n_sources; ++i) sources[i] = args.sources[i];
        for (int i = 0; i < n_identity; ++i) identity[i] = args.identity[i];
    }
};

// Every source's terms, `depth` at a time. Where a source ends within a step, the rest are zeros.
template <class T, int most>
class SourceSteps {
public:
    __device__ __forceinline__ SourceSteps(const Terms<T, most>& terms, std::int64_t first_row, std::int64_t rows,
                                           std::int64_t panel)
        : terms_(terms), first_row_(first_row), rows_(rows), panel_(panel) {
        seek();
    }
    __device__ __forceinline__ bool exists() const { return next_ < terms_.n_sources; }
    __device__ __forceinline__ void advance() {
        term_ += Multiply<T>::depth;
        if (term_ < inner_) return;
        ++next_;
        seek();
    }
    __device__ __forceinline__ T a(int row, int term) const {
        const std::int64_t i = first_row_ + row, k = term_ + term;
        return i < rows_ && k < inner_ ? rows_of_a_.data[i * rows_of_a_.stride + k] : T{};
    }
    __device__ __forceinline__ T b(int term, int column) const {
        const std::int64_t k = term_ + term;
        // An operand that is a copy is padded to whole steps.
        return !computes_itself<T> || k < inner_ ? panel_at_[k * panel_width + column] : T{};
    }

private:
    // To the first term of the next source that has any.
    __device__ __forceinline__ void seek() {
        term_ = 0;
        for (; next_ < terms_.n_sources; ++next_) {
            const Source<T>& source = terms_.sources[next_];
            inner_ = source.inner;
            if (inner_ <= 0) continue;
            rows_of_a_ = source.rows;
            panel_at_ = source.panels + panel_ * operand_rows<T>(inner_) * panel_width;
            return;
        }
    }

    const Terms<T, most>& terms_;
    std::int64_t first_row_, rows_, panel_;
    int next_ = 0;
    std::int64_t term_ = 0, inner_ = 0;
    Rows<T> rows_of_a_;
    const T* panel_at_ = nullptr;
};

// The sums of this block's tile, in `memory`.
template <class T, int most>
__device__ __forceinline__ void sum_sources(const Terms<T, most>& terms, std::int64_t rows, TileMemory<T>& memory) {
    Compute<T> total[sums_of_thread] = {};
    add_steps<T, true, Multiply<T>::longest_sum>(
        SourceSteps<T, most>(terms, static_cast<std::int64_t>(blockIdx.x) * tile_size, rows, blockIdx.y), memory,
        total);
    share_sums<T>(total, memory);
}

// kernel<usual_terms> or, for longer lists, kernel<max_terms>, on a grid of tiles. `Kernel` holds them by their number.
template <class T, class Args, class Kernels>
void launch_sum(const Args& args, const Kernels& kernels) {
    if (args.rows == 0 || args.columns == 0) return;
    const dim3 grid(static_cast<unsigned>((args.rows + tile_size - 1) / tile_size),
                    static_cast<unsigned>(panel_count(args.columns, panel_width)));
    if (args.n_sources <= usual_terms && args.n_identity <= usual_terms)
        launch(kernels.usual, grid, tile_threads, args, Terms<T, usual_terms>(args));
    else
        launch(kernels.long_lists, grid, tile_threads, args, Terms<T, max_terms>(args));
}

template <class T, class Args>
struct SumKernels {
    void (*usual)(Args, Terms<T, usual_terms>);
    void (*long_lists)(Args, Terms<T, max_terms>);
};

}  // namespace cuda
}  // namespace resnetcore

// A sum over sources: the lists that a kernel takes as parameters, and the steps through them.
#pragma once

#include "kernels/cuda/largest.cuh"
#include "kernels/cuda/product.cuh"

namespace resnetcore {
namespace cuda {

constexpr int usual_terms = 8;  // of nearly every layer; longer lists cost a launch more

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
    template <int n, class Kept>
    __device__ __forceinline__ void add_identities(Stretch<Compute<T>, n>& sum, std::int64_t i, std::int64_t j,
                                                   const Kept& kept) const {
        if (n_identity > 0) each(sum, Plus(), kept.template get<n>(identity[0], i, j));
        for (int s = 1; s < n_identity; ++s) each(sum, Plus(), read<n>(identity[s], i, j));
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

// Σ A·W for one tile a block, and then `Epilogue`, which has the operation's `args` and says what becomes of the sums
// at row i from column j on: add(sums, terms, i, j, kept), add_branch(sums, i, j, kept) and finish(sums, i, j, largest,
// kept), and with the last what becomes of the thread's largest result. Each reads one array above all, which may have
// been read already: the first skip, `branch()` and `last()`.
template <class T, int most, class Epilogue>
__global__ void __launch_bounds__(tile_threads)
    sum_kernel(const __grid_constant__ Epilogue epilogue, const __grid_constant__ Terms<T, most> terms) {
    __shared__ TileMemory<T> memory;
    const std::int64_t rows = epilogue.args.rows, columns = epilogue.args.columns;
    const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * tile_size, panel = blockIdx.y;
    Compute<T> total[sums_of_thread] = {};
    add_steps<T, true, Multiply<T>::longest_sum>(SourceSteps<T, most>(terms, first_row, rows, panel), memory, total);
    share_sums<T>(total, memory);
    LargestResult<T> largest;
    for_tile([&](int row, int column) {
        const std::int64_t i = first_row + row, j = panel * panel_width + column;
        if (i >= rows || j >= columns) return;
        Stretch<Compute<T>, 1> sums{{memory.sums[row][column]}};
        epilogue.add(sums, terms, i, j, NothingKept());
        epilogue.add_branch(sums, i, j, NothingKept());
        epilogue.finish(sums, i, j, largest, NothingKept());
    });
    largest.keep(epilogue.args.largest);
}

template <class T, class Epilogue>
void launch_sum(const Epilogue& epilogue) {
    static_assert(sizeof(Terms<T, max_terms>) + sizeof(Epilogue) <= 32764, "what a kernel's parameters may take");
    const auto& args = epilogue.args;
    if (args.rows == 0 || args.columns == 0) return;
    const dim3 grid(static_cast<unsigned>((args.rows + tile_size - 1) / tile_size),
                    static_cast<unsigned>(panel_count(args.columns, panel_width)));
    if (args.n_sources <= usual_terms && args.n_identity <= usual_terms)
        launch<sum_kernel<T, usual_terms, Epilogue>>(grid, tile_threads, epilogue, Terms<T, usual_terms>(args));
    else
        launch<sum_kernel<T, max_terms, Epilogue>>(grid, tile_threads, epilogue, Terms<T, max_terms>(args));
}

}  // namespace cuda
}  // namespace resnetcore

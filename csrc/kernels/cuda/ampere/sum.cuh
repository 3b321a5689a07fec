// Σ A·W over sources in bfloat16, on GPUs of compute capability 8.0 and later: what sources.cuh does, for the same
// epilogues, by copies that are on their way while others are multiplied, and by tiles twice or four times as large.
//
// Invariant: whether a sum is taken here is decided by the strides and places of its terms, never by the number of
// rows.
#pragma once

#include <type_traits>

#include "kernels/cuda/ampere/tile.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/sources.cuh"

namespace resnetcore {
namespace cuda {
namespace ampere {

// A stage's terms of every source: 128 rows of A, and the tile's panels of W.
template <int panels, int most>
class SourceStages {
public:
    __device__ __forceinline__ SourceStages(const Terms<bfloat16, most>& terms, std::int64_t first_row,
                                            std::int64_t rows, std::int64_t first_panel, std::int64_t all_panels)
        : terms_(terms), first_panel_(first_panel), panels_there_(static_cast<int>(all_panels - first_panel)) {
#pragma unroll
        for (int i = 0; i < copies_of_a; ++i) {
            const std::int64_t row = first_row + row_of_copy(i);
            rows_[i] = row < rows ? row : -1;
        }
        seek();
    }
    __device__ __forceinline__ int count() const {
        std::int64_t n = 0;
        for (int s = 0; s < terms_.n_sources; ++s)
            if (terms_.sources[s].inner > 0) n += (terms_.sources[s].inner + stage_terms - 1) / stage_terms;
        return static_cast<int>(n);
    }
    __device__ __forceinline__ void advance() {
        term_ += stage_terms;
        operand_ += stage_terms * panel_width;
        if (term_ < inner_) return;
        ++next_;
        seek();
    }
    __device__ __forceinline__ void copy_to(Shared stage) const {
        const Rows<bfloat16>& a = terms_.sources[next_].rows;
        const std::int64_t k = term_ + place_of_copy() * place_numbers, left = (inner_ - k) * 2;
        const int bytes = left >= place_bytes ? place_bytes : left > 0 ? static_cast<int>(left) : 0;
#pragma unroll
        for (int i = 0; i < copies_of_a; ++i) {
            const bool there = rows_[i] >= 0 && bytes > 0;
            copy_place(stage + place_in_rows(row_of_copy(i), place_of_copy()),
                       there ? a.data + rows_[i] * a.stride + k : a.data, there ? bytes : 0);
        }
        // An operand is padded to whole stages. Thread by thread its places follow each other.
        const int place = static_cast<int>(threadIdx.x);
#pragma unroll
        for (int panel = 0; panel < panels; ++panel)
            copy_place(
                stage + a_bytes + static_cast<std::uint32_t>(panel) * box_bytes + place_in_box(place / 8, place % 8),
                operand_ + (panel < panels_there_ ? panel * panel_size() : 0) + place * place_numbers,
                panel < panels_there_ ? place_bytes : 0);
    }

private:
    static constexpr int copies_of_a = tile_rows * places_of_row / threads;
    static_assert(stage_terms * (box_width / place_numbers) == threads, "a thread copies a place of each panel");
    static_assert(stage_terms == 32, "operands are padded to so many rows (operand_rows)");

    static __device__ __forceinline__ int row_of_copy(int i) {
        return static_cast<int>(threadIdx.x) / places_of_row + i * (threads / places_of_row);
    }
    static __device__ __forceinline__ int place_of_copy() { return static_cast<int>(threadIdx.x) % places_of_row; }
    __device__ __forceinline__ std::int64_t panel_size() const { return operand_rows<bfloat16>(inner_) * panel_width; }
    // To the first term of the next source that has any.
    __device__ __forceinline__ void seek() {
        term_ = 0;
        for (; next_ < terms_.n_sources; ++next_) {
            inner_ = terms_.sources[next_].inner;
            if (inner_ > 0) break;
        }
        if (next_ < terms_.n_sources) operand_ = terms_.sources[next_].panels + first_panel_ * panel_size();
    }

    const Terms<bfloat16, most>& terms_;
    const std::int64_t first_panel_;
    const int panels_there_;
    std::int64_t rows_[copies_of_a];  // −1: it is not there
    int next_ = 0;
    std::int64_t term_ = 0, inner_ = 0;
    const bfloat16* operand_ = nullptr;  // the term's row of the first panel
};

// n neighbours of row i, from column j on.
template <int n, int panels, int most, class Epilogue>
__device__ __forceinline__ void finish(const SharedSums<panels>& left, int row, int column, const Epilogue& epilogue,
                                       const Terms<bfloat16, most>& terms, std::int64_t i, std::int64_t j,
                                       LargestResult<bfloat16>& largest) {
    Stretch<float, n> sums;
    if constexpr (n == 8) {
        load(left.place(row, column), sums.at[0], sums.at[1], sums.at[2], sums.at[3]);
        load(left.place(row, column + 4), sums.at[4], sums.at[5], sums.at[6], sums.at[7]);
    } else {
        sums.at[0] = load(left.place(row, column));
    }
    epilogue.add(sums, terms, i, j, NothingKept());
    epilogue.add_branch(sums, i, j, NothingKept());
    epilogue.finish(sums, i, j, largest, NothingKept());
}

// `whole`: everything that the epilogue touches lies on boundaries of 16 bytes, and so do stretches of 8 columns.
template <int panels, int most, class Epilogue>
__global__ void __launch_bounds__(threads, 3 - panels)
    copied_sum_kernel(const __grid_constant__ Epilogue epilogue, const __grid_constant__ Terms<bfloat16, most> terms,
                      bool whole) {
    const std::int64_t rows = epilogue.args.rows, columns = epilogue.args.columns;
    const std::int64_t first_row = std::int64_t{blockIdx.x} * tile_rows,
                       first_panel = std::int64_t{blockIdx.y} * panels;
    const Shared memory = shared_memory();
    float total[WarpTile<panels>::count] = {};
    add_stages<panels, true, MatrixUnit<bfloat16>::longest_sum>(
        SourceStages<panels, most>(terms, first_row, rows, first_panel, (columns + panel_width - 1) / panel_width),
        memory, total);
    const SharedSums<panels> left{memory};
    left.leave(total);
    LargestResult<bfloat16> largest;
    constexpr int width = 8, across = panels * panel_width / width;
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < tile_rows * across; at += threads) {
        const int row = at / across, column = at % across * width;
        const std::int64_t i = first_row + row, j = first_panel * panel_width + column;
        if (i >= rows || j >= columns) continue;
        if (whole && columns - j >= width) {
            finish<width>(left, row, column, epilogue, terms, i, j, largest);
        } else {
#pragma unroll 1
            for (int c = 0; c < width && j + c < columns; ++c)
                finish<1>(left, row, column + c, epilogue, terms, i, j + c, largest);
        }
    }
    largest.keep(epilogue.args.largest);
}

template <int panels, int most, class Epilogue>
void launch_tiles(const Epilogue& epilogue) {
    static_assert(sizeof(Terms<bfloat16, most>) + sizeof(Epilogue) + 8 <= 32764, "what a kernel's parameters may take");
    const auto& args = epilogue.args;
    const dim3 grid(static_cast<unsigned>((args.rows + tile_rows - 1) / tile_rows),
                    static_cast<unsigned>(panel_count(args.columns, panels * panel_width)));
    launch_with<copied_sum_kernel<panels, most, Epilogue>, shared_bytes<panels>>(
        grid, threads, epilogue, Terms<bfloat16, most>(args), epilogue.is_on_boundaries());
}
template <int panels, class Epilogue>
void launch_tiles(const Epilogue& epilogue) {
    if (epilogue.args.n_sources <= usual_terms && epilogue.args.n_identity <= usual_terms)
        launch_tiles<panels, usual_terms>(epilogue);
    else
        launch_tiles<panels, max_terms>(epilogue);
}

// False where it is not for this path; then nothing was launched.
template <class T, class Epilogue>
bool launch_sum(const Epilogue& epilogue) {
    if constexpr (std::is_same<T, bfloat16>::value) {
        const auto& args = epilogue.args;
        if (current_path() != Path::ampere || args.rows == 0 || args.columns == 0) return false;
        for (int s = 0; s < args.n_sources; ++s)
            if (args.sources[s].inner > 0 && !on_boundaries(args.sources[s].rows, args.sources[s].panels)) return false;
        if (fills_gpu(args.rows, panel_count(args.columns, panel_width)))
            launch_tiles<2>(epilogue);
        else
            launch_tiles<1>(epilogue);
        return true;
    } else {
        (void)epilogue;
        return false;
    }
}

}  // namespace ampere
}  // namespace cuda
}  // namespace resnetcore

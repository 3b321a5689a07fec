// Products of a block's tile by fused multiply-adds, for types that are computed with as they are: every thread has 4 ×
// 4 of the 64 × 64 sums.
#pragma once

#include "kernels/cuda/tile.cuh"

namespace resnetcore {
namespace cuda {

template <class T>
class FusedMultiply {
public:
    static constexpr int depth = 16;  // terms of each sum in a stage
    // Sums of more terms are cut and the parts added, so that rounding errors do not grow with the length.
    static constexpr int longest_sum = 512, longest_gradient = longest_sum;
    // Four more than the rows keep the threads that write a column apart, and rows on boundaries of 16 bytes.
    struct Stage {
        T a[depth][tile_size + 4];
        T b[depth][tile_size];
    };

    // Takes elements of A, which lie in memory along the sum's terms or across them, and of B into registers.
    // step.a(row, term) and step.b(term, column) are 0 where there is none.
    template <bool a_along_terms, class Step>
    __device__ __forceinline__ void fetch(const Step& step) {
#pragma unroll
        for (int i = 0; i < parts; ++i) {
            const Position p = a_position<a_along_terms>(i);
            a_[i] = step.a(p.row, p.column);
            b_[i] = step.b(b_term(i), b_column());
        }
    }
    template <bool a_along_terms>
    __device__ __forceinline__ void store(Stage& stage) const {
#pragma unroll
        for (int i = 0; i < parts; ++i) {
            const Position p = a_position<a_along_terms>(i);
            stage.a[p.column][p.row] = a_[i];
            stage.b[b_term(i)][b_column()] = b_[i];
        }
    }

    static __device__ __forceinline__ void multiply(const Stage& stage, T (&sum)[sums_of_thread]) {
        const int row = threadIdx.x / side * rows, column = threadIdx.x % side;
#pragma unroll
        for (int k = 0; k < depth; ++k) {
            T a[rows], b[columns];
#pragma unroll
            for (int i = 0; i < rows; ++i) a[i] = stage.a[k][row + i];
#pragma unroll
            for (int j = 0; j < columns; ++j) b[j] = stage.b[k][column + side * j];
#pragma unroll
            for (int i = 0; i < rows; ++i)
#pragma unroll
                for (int j = 0; j < columns; ++j) sum[i * columns + j] = multiply_add(a[i], b[j], sum[i * columns + j]);
        }
    }
    // Where sum i of this thread lies in the tile.
    static __device__ __forceinline__ Position position(int i) {
        return {static_cast<int>(threadIdx.x) / side * rows + i / columns,
                static_cast<int>(threadIdx.x) % side + side * (i % columns)};
    }

private:
    static constexpr int rows = 4, columns = 4, side = tile_size / columns;
    static constexpr int parts = depth * tile_size / tile_threads;

    // Neighbouring threads take neighbours in memory.
    template <bool along_terms>
    static __device__ __forceinline__ Position a_position(int i) {
        const int thread = static_cast<int>(threadIdx.x);
        return along_terms ? Position{thread / depth + tile_threads / depth * i, thread % depth}
                           : Position{thread % tile_size, thread / tile_size + tile_threads / tile_size * i};
    }
    static __device__ __forceinline__ int b_term(int i) {
        return static_cast<int>(threadIdx.x) / tile_size + tile_threads / tile_size * i;
    }
    static __device__ __forceinline__ int b_column() { return static_cast<int>(threadIdx.x) % tile_size; }

    T a_[parts], b_[parts];
};

}  // namespace cuda
}  // namespace resnetcore

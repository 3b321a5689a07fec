// Products of a block's tile by the matrix units' bfloat16 instruction, summed in float. bfloat16x2 is three such
// products: high·high and the two mixed ones; low·low is below what a float holds.
//
// Invariant: a word of a stage holds two terms of a sum that follow each other, the first in its lower half, as the
// instruction takes them; a thread's fragments are whole words.
#pragma once

#include "kernels/cuda/tile.cuh"

namespace resnetcore {
namespace cuda {

// c += a·b by a warp, a of 16 × 16 and b of 16 × 8. With g = lane / 4 and t = lane % 4, and columns counted in words
// (pairs of terms): a is at (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4) of A; b at (t, g), (t + 4, g) of B; c at (g,
// 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point
// type"). Volatile: all lanes are to do it together, and any other asm the compiler may move to where some do not.
__device__ __forceinline__ void multiply_fragments(float* c, const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(RESNETCORE_CUDA_EMULATION)
    emulation::multiply_fragments(c, a, b);
#endif
}

// A word of each part of two neighbours: bfloat16 has one part, bfloat16x2 its high parts and its low ones.
__device__ __forceinline__ std::uint32_t pair(bfloat16 first, bfloat16 second) {
    return static_cast<std::uint32_t>(second.bits) << 16 | first.bits;
}
__device__ __forceinline__ void split(bfloat16 first, bfloat16 second, std::uint32_t (&words)[1]) {
    words[0] = pair(first, second);
}
__device__ __forceinline__ void split(bfloat16x2 first, bfloat16x2 second, std::uint32_t (&words)[2]) {
    words[0] = pair(first.high, second.high);
    words[1] = pair(first.low, second.low);
}

template <class T>
class MatrixUnit {
public:
    static constexpr int depth = 32;
    static constexpr int parts = operand_parts<T>;
    // Short: the units do not round what they add, but cut it off, and always towards zero (Fasi, Higham, Mikaitis &
    // Pranesh 2021, "Numerical behavior of NVIDIA tensor cores"): after 512 terms, 32 times, up to 2⁻¹⁸ of the sum,
    // which is nothing beside the 2⁻⁹ of a bfloat16, and too much for the 2⁻¹⁷ of two halves. Hopper's add more terms
    // at a time than those before, and may take twice as many; gradients of weights, which are not rounded, are cut
    // sooner all the same.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    static constexpr int longest_bfloat16_sum = 512;
#else
    static constexpr int longest_bfloat16_sum = 1024;
#endif
    static constexpr int longest_sum = parts == 1 ? longest_bfloat16_sum : 128;
    static constexpr int longest_gradient = parts == 1 ? 512 : 128;
    // Rows are so much longer than what they hold that the words of a warp's fragment lie in 32 banks.
    struct Stage {
        std::uint32_t a[parts][tile_size][depth / 2 + 4];
        std::uint32_t b[parts][depth / 2][tile_size + 8];
    };

    template <bool a_along_terms, class Step>
    __device__ __forceinline__ void fetch(const Step& step) {
#pragma unroll
        for (int i = 0; i < words; ++i) {
            const Position p = a_position<a_along_terms>(i);
            split(step.a(p.row, 2 * p.column), step.a(p.row, 2 * p.column + 1), a_[i]);
            const int term = 2 * b_row(i);
            split(step.b(term, b_column()), step.b(term + 1, b_column()), b_[i]);
        }
    }
    template <bool a_along_terms>
    __device__ __forceinline__ void store(Stage& stage) const {
#pragma unroll
        for (int i = 0; i < words; ++i) {
            const Position p = a_position<a_along_terms>(i);
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                stage.a[part][p.row][p.column] = a_[i][part];
                stage.b[part][b_row(i)][b_column()] = b_[i][part];
            }
        }
    }

    // A warp has 16 rows and 32 columns of the tile, four blocks of 8.
    static __device__ __forceinline__ void multiply(const Stage& stage, float (&sum)[sums_of_thread]) {
        const int row = warp_row() + group(), word = lane_in_group();
#pragma unroll
        for (int k = 0; k < depth / 2; k += 8) {
            std::uint32_t a[parts][4];
#pragma unroll
            for (int part = 0; part < parts; ++part)
#pragma unroll
                for (int i = 0; i < 4; ++i) a[part][i] = stage.a[part][row + 8 * (i % 2)][k + word + 4 * (i / 2)];
#pragma unroll
            for (int block = 0; block < 4; ++block) {
                std::uint32_t b[parts][2];
#pragma unroll
                for (int part = 0; part < parts; ++part)
#pragma unroll
                    for (int i = 0; i < 2; ++i)
                        b[part][i] = stage.b[part][k + word + 4 * i][warp_column() + 8 * block + group()];
                if constexpr (parts == 2) {
                    multiply_fragments(sum + 4 * block, a[0], b[1]);
                    multiply_fragments(sum + 4 * block, a[1], b[0]);
                }
                multiply_fragments(sum + 4 * block, a[0], b[0]);
            }
        }
    }
    static __device__ __forceinline__ Position position(int i) {
        return {warp_row() + group() + 8 * (i % 4 / 2), warp_column() + i / 4 * 8 + 2 * lane_in_group() + i % 2};
    }

private:
    static constexpr int words = depth / 2 * tile_size / tile_threads;

    static __device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) % 32 / 4; }
    static __device__ __forceinline__ int lane_in_group() { return static_cast<int>(threadIdx.x) % 4; }
    static __device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 % 4 * 16; }
    static __device__ __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / 128 * 32; }

    // Neighbouring threads take neighbours in memory. The column is one of words.
    template <bool along_terms>
    static __device__ __forceinline__ Position a_position(int i) {
        const int thread = static_cast<int>(threadIdx.x), across = depth / 2;
        return along_terms ? Position{thread / across + tile_threads / across * i, thread % across}
                           : Position{thread % tile_size, thread / tile_size + tile_threads / tile_size * i};
    }
    static __device__ __forceinline__ int b_row(int i) {
        return static_cast<int>(threadIdx.x) / tile_size + tile_threads / tile_size * i;
    }
    static __device__ __forceinline__ int b_column() { return static_cast<int>(threadIdx.x) % tile_size; }

    std::uint32_t a_[words][parts], b_[words][parts];
};

}  // namespace cuda
}  // namespace resnetcore

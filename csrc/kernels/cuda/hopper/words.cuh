// Eight neighbours in bfloat16, as they are stored: what a thread moves in one access of 16 bytes.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper/atoms.cuh"
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

struct alignas(16) Words {
    std::uint32_t at[4];
};

// Nothing changes by adding it, not even a zero's sign.
constexpr std::uint32_t nothing_twice = 0x80008000;  // −0, twice
constexpr std::uint32_t ones = 0x3f803f80;           // 1, twice: where ReLU's slope is 1

__device__ __forceinline__ Stretch<float, 2> numbers_of(std::uint32_t pair) {
    return {{to_float(lower(pair)), to_float(upper(pair))}};
}
__device__ __forceinline__ Stretch<float, 8> numbers_of(const Words& words) {
    Stretch<float, 8> x;
#pragma unroll
    for (int c = 0; c < 8; c += 2) {
        const Stretch<float, 2> two = numbers_of(words.at[c / 2]);
        x.at[c] = two.at[0], x.at[c + 1] = two.at[1];
    }
    return x;
}
__device__ __forceinline__ Words words_of(const Stretch<float, 8>& x) {
    Words words;
#pragma unroll
    for (int c = 0; c < 8; c += 2) words.at[c / 2] = pair_of(x.at[c], x.at[c + 1]);
    return words;
}

// Of magnitudes of such neighbours, the largest at even places and at odd ones. By whole warps; null: nobody asks.
__device__ __forceinline__ void keep_largest_of_pair(std::uint32_t most, double* into) {
    if (!into) return;
    most = largest_of_warp((most & 0xffff) > most >> 16 ? most & 0xffff : most >> 16);
    if (leads_warp()) keep_magnitude(to_float(lower(most)), into);
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

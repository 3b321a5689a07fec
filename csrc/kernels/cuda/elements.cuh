// Elements in storage and in registers, and kernels that do the same to every element of a matrix.
#pragma once

#include <cstdint>

#include "kernels/cuda/functions.h"
#include "kernels/cuda/launch.cuh"

namespace resnetcore {
namespace cuda {

__device__ __forceinline__ float read(float x) { return x; }
__device__ __forceinline__ double read(double x) { return x; }
__device__ __forceinline__ float read(bfloat16 x) { return to_float(x); }
__device__ __forceinline__ float read(bfloat16x2 x) { return to_float(x); }

__device__ __forceinline__ void write(float x, float& to) { to = x; }
__device__ __forceinline__ void write(double x, double& to) { to = x; }
__device__ __forceinline__ void write(float x, bfloat16& to) { to = to_bfloat16(x); }
__device__ __forceinline__ void write(float x, bfloat16x2& to) { to = to_bfloat16x2(x); }

template <class T>
__device__ __forceinline__ Compute<T> read(const Rows<T>& rows, std::int64_t i, std::int64_t j) {
    return read(rows.data[i * rows.stride + j]);
}
template <class T>
__device__ __forceinline__ void write(Compute<T> x, const MutableRows<T>& rows, std::int64_t i, std::int64_t j) {
    write(x, rows.data[i * rows.stride + j]);
}
// To `out` rounded, to `wide` as it is. Either may be null where T rounds; where it does not, there is `out` alone.
template <class T>
__device__ __forceinline__ void write_both(Compute<T> x, const MutableRows<T>& out, const MutableRows<Compute<T>>& wide,
                                           std::int64_t i, std::int64_t j) {
    if (computes_itself<T> || out.data) write(x, out, i, j);
    if (!computes_itself<T> && wide.data) write<Compute<T>>(x, wide, i, j);
}

template <class Operation>
__global__ void each_element(std::int64_t rows, std::int64_t columns, const __grid_constant__ Operation operation) {
    const std::int64_t all = rows * columns, step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += step)
        operation(at / columns, at % columns);
}

// operation(i, j), once for each element, in any order.
template <class Operation>
void for_elements(std::int64_t rows, std::int64_t columns, const Operation& operation, int threads = 256) {
    constexpr std::int64_t most = 1 << 20;  // blocks; the rest is looped over
    const std::int64_t blocks = (rows * columns + threads - 1) / threads;
    if (blocks == 0) return;
    launch<each_element<Operation>>(dim3(static_cast<unsigned>(blocks < most ? blocks : most)), threads, rows, columns,
                                    operation);
}

}  // namespace cuda
}  // namespace resnetcore

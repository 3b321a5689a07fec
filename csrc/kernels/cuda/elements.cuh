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

// n neighbours of a row, which are read and written together: up to 16 bytes at a time, on whose boundaries they are.
template <class T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Stretch {
    T at[n];
};

template <int n, class T>
__device__ __forceinline__ Stretch<Compute<T>, n> read(const T* from) {
    const Stretch<T, n> stored = *reinterpret_cast<const Stretch<T, n>*>(from);
    Stretch<Compute<T>, n> x;
#pragma unroll
    for (int c = 0; c < n; ++c) x.at[c] = read(stored.at[c]);
    return x;
}
template <int n, class T>
__device__ __forceinline__ Stretch<Compute<T>, n> read(const Rows<T>& rows, std::int64_t i, std::int64_t j) {
    return read<n>(rows.data + i * rows.stride + j);
}
template <int n, class T>
__device__ __forceinline__ void write(const Stretch<Compute<T>, n>& x, T* to) {
    Stretch<T, n> stored;
#pragma unroll
    for (int c = 0; c < n; ++c) write(x.at[c], stored.at[c]);
    *reinterpret_cast<Stretch<T, n>*>(to) = stored;
}
template <int n, class T>
__device__ __forceinline__ void write(const Stretch<Compute<T>, n>& x, const MutableRows<T>& rows, std::int64_t i,
                                      std::int64_t j) {
    write<n>(x, rows.data + i * rows.stride + j);
}

// Whether stretches of 16 bytes can be read and written there, from columns on that are multiples of 8.
inline bool is_on_boundary(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; }
template <class T>
bool on_boundary(const T* at) {
    return is_on_boundary(at);
}
template <class T>
bool on_boundary(const Rows<T>& rows) {
    return is_on_boundary(rows.data) && is_on_boundary(rows.data + rows.stride);
}
template <class T>
bool on_boundary(const MutableRows<T>& rows) {
    return on_boundary(Rows<T>(rows));
}
template <class... Places>
bool on_boundaries(const Places&... places) {
    return (on_boundary(places) && ...);
}
template <class T>
bool are_on_boundaries(const Rows<T>* list, int count) {
    for (int i = 0; i < count; ++i)
        if (!on_boundary(list[i])) return false;
    return true;
}

// x = operation(x, others…), for each of the neighbours.
template <class C, int n, class Operation, class... Others>
__device__ __forceinline__ void each(Stretch<C, n>& x, Operation operation, const Others&... others) {
#pragma unroll
    for (int c = 0; c < n; ++c) x.at[c] = operation(x.at[c], others.at[c]...);
}
struct Plus {
    template <class C>
    __device__ __forceinline__ C operator()(C x, C y) const {
        return x + y;
    }
};
struct Times {
    template <class C>
    __device__ __forceinline__ C operator()(C x, C y) const {
        return x * y;
    }
};

template <class T>
__device__ __forceinline__ Compute<T> read(const Rows<T>& rows, std::int64_t i, std::int64_t j) {
    return read(rows.data[i * rows.stride + j]);
}
template <class T>
__device__ __forceinline__ void write(Compute<T> x, const MutableRows<T>& rows, std::int64_t i, std::int64_t j) {
    write(x, rows.data[i * rows.stride + j]);
}
// To `out` rounded, to `wide` as it is. Either may be null where T rounds; where it does not, there is `out` alone.
template <int n, class T>
__device__ __forceinline__ void write_both(const Stretch<Compute<T>, n>& x, const MutableRows<T>& out,
                                           const MutableRows<Compute<T>>& wide, std::int64_t i, std::int64_t j) {
    if (computes_itself<T> || out.data) write<n>(x, out, i, j);
    if (!computes_itself<T> && wide.data) write<n>(x, wide, i, j);
}

template <class Operation>
__global__ void each_element(std::int64_t rows, std::int64_t columns, const __grid_constant__ Operation operation) {
    begin_kernel();
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

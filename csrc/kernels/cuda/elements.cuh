// Elements in storage and in registers, and kernels that do the same to every element of a matrix.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/functions.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pairs.cuh"

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

// Of two numbers in a word.
__device__ __forceinline__ bfloat16 lower(std::uint32_t pair) { return {static_cast<std::uint16_t>(pair)}; }
__device__ __forceinline__ bfloat16 upper(std::uint32_t pair) { return {static_cast<std::uint16_t>(pair >> 16)}; }

// n neighbours of a row, which are read and written together: up to 16 bytes at a time, on whose boundaries they are.
template <class T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Stretch {
    T at[n];
};

template <class T, int n>
__device__ __forceinline__ Stretch<Compute<T>, n> read(const Stretch<T, n>& stored) {
    Stretch<Compute<T>, n> x;
#pragma unroll
    for (int c = 0; c < n; ++c) x.at[c] = read(stored.at[c]);
    return x;
}
template <int n, class T>
__device__ __forceinline__ const Stretch<T, n>& stretch_at(const T* from) {
    return *reinterpret_cast<const Stretch<T, n>*>(from);
}
template <int n, class T>
__device__ __forceinline__ Stretch<Compute<T>, n> read(const T* from) {
    const Stretch<T, n> stored = stretch_at<n>(from);
    return read(stored);
}
template <int n, class T>
__device__ __forceinline__ Stretch<Compute<T>, n> read(const Rows<T>& rows, std::int64_t i, std::int64_t j) {
    return read<n>(rows.data + i * rows.stride + j);
}
template <int n, class T>
__device__ __forceinline__ void write(const Stretch<Compute<T>, n>& x, T* to) {
    if constexpr (std::is_same<T, bfloat16>::value && n == 8) {
        std::uint32_t words[n / 2];
#pragma unroll
        for (int c = 0; c < n; c += 2) words[c / 2] = pair_of(x.at[c], x.at[c + 1]);
        write_words(to, words);
    } else {
        Stretch<T, n> stored;
#pragma unroll
        for (int c = 0; c < n; ++c) write(x.at[c], stored.at[c]);
        *reinterpret_cast<Stretch<T, n>*>(to) = stored;
    }
}
template <int n, class T>
__device__ __forceinline__ void write(const Stretch<Compute<T>, n>& x, const MutableRows<T>& rows, std::int64_t i,
                                      std::int64_t j) {
    write<n>(x, rows.data + i * rows.stride + j);
}

// What has been read already of an array that an epilogue reads: nothing.
struct NothingKept {
    template <int n, class T>
    __device__ __forceinline__ Stretch<Compute<T>, n> get(const Rows<T>& rows, std::int64_t i, std::int64_t j) const {
        return read<n>(rows, i, j);
    }
};

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

// Where the element lies that is number `at` of all, which are counted row by row.
struct Place {
    std::int64_t i, j;
};
__device__ __forceinline__ Place place_of(std::int64_t at, std::int64_t all, std::int64_t columns) {
    if (all == columns) return {0, at};
    if (all > 0xffffffff) return {at / columns, at % columns};
    // A GPU divides 32 bits several times faster.
    const auto number = static_cast<std::uint32_t>(at), width = static_cast<std::uint32_t>(columns);
    return {number / width, number % width};
}

template <class Operation>
__global__ void each_element(std::int64_t rows, std::int64_t columns, const __grid_constant__ Operation operation) {
    const std::int64_t all = rows * columns, step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += step) {
        const Place place = place_of(at, all, columns);
        operation(place.i, place.j);
    }
}

// Columns that a thread takes together where everything that it touches lies on boundaries.
constexpr int stretch_columns = 8;
template <int n>
using Columns = std::integral_constant<int, n>;
RC_HD std::int64_t stretch_count(std::int64_t rows, std::int64_t columns, bool whole) {
    return rows * (whole ? (columns + stretch_columns - 1) / stretch_columns : columns);
}

// visit(Columns<n>(), i, j) for columns j to j + n of row i: this thread's share of all. `whole`: whether stretches of
// 8 columns are visited together; what a row has beyond them, and without it all, goes one by one.
template <class Visit>
__device__ __forceinline__ void visit_stretches(std::int64_t rows, std::int64_t columns, bool whole, Visit visit) {
    const std::int64_t width = whole ? stretch_columns : 1;
    const std::int64_t of_row = stretch_count(1, columns, whole), all = rows * of_row;
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += step) {
        const Place place = place_of(at, all, of_row);
        const std::int64_t first = place.j * width, end = first + width < columns ? first + width : columns;
        if (end - first == stretch_columns) {
            visit(Columns<stretch_columns>(), place.i, first);
        } else {
#pragma unroll 1
            for (std::int64_t j = first; j < end; ++j) visit(Columns<1>(), place.i, j);
        }
    }
}
template <class Operation>
__global__ void each_stretch(std::int64_t rows, std::int64_t columns, bool whole,
                             const __grid_constant__ Operation operation) {
    visit_stretches(rows, columns, whole, operation);
}

constexpr int element_threads = 256;
// That so many threads need; no more than `most`, the rest is looped over.
inline std::int64_t blocks_for(std::int64_t all, int threads, std::int64_t most) {
    const std::int64_t blocks = (all + threads - 1) / threads;
    return blocks < most ? blocks : most;
}
constexpr std::int64_t most_blocks = 1 << 20;
// operation(i, j), once for each element, in any order.
template <class Operation>
void for_elements(std::int64_t rows, std::int64_t columns, const Operation& operation, int threads = element_threads) {
    const std::int64_t blocks = blocks_for(rows * columns, threads, most_blocks);
    if (blocks == 0) return;
    launch<each_element<Operation>>(dim3(static_cast<unsigned>(blocks)), threads, rows, columns, operation);
}
// operation(Columns<n>(), i, j), as `visit_stretches` has it, for all elements.
template <class Operation>
void for_stretches(std::int64_t rows, std::int64_t columns, bool whole, const Operation& operation) {
    const std::int64_t blocks = blocks_for(stretch_count(rows, columns, whole), element_threads, most_blocks);
    if (blocks == 0) return;
    launch<each_stretch<Operation>>(dim3(static_cast<unsigned>(blocks)), element_threads, rows, columns, whole,
                                    operation);
}

// A row of blocks for each vector of a call.
template <class Operation>
__global__ void each_vector(const __grid_constant__ Operation operation) {
    if (!permits(operation.args.permission)) return;
    const auto& vector = operation.args.vectors[blockIdx.y];
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; j < vector.size; j += step)
        operation(vector, j);
}
// operation(vector, j), once for each element of each of `operation.args.vectors`, in any order, if that is permitted.
template <class Operation>
void for_vectors(const Operation& operation) {
    std::int64_t longest = 0;
    for (int v = 0; v < operation.args.count; ++v)
        if (operation.args.vectors[v].size > longest) longest = operation.args.vectors[v].size;
    const std::int64_t blocks = blocks_for(longest, element_threads, most_blocks);
    if (blocks > 0)
        launch<each_vector<Operation>>(dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(operation.args.count)),
                                       element_threads, operation);
}

}  // namespace cuda
}  // namespace resnetcore

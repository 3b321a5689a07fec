// Matrices of integers of a few bits, which every precision holds and whose sums are exact in any order; flush against
// forbidden pages.
#pragma once

#include "math/bfloat16.h"
#include "matrices.h"

namespace resnetcore {

inline void set(bfloat16& to, float value) { to = to_bfloat16(value); }
inline void set(bfloat16x2& to, float value) { to = to_bfloat16x2(value); }
template <class T>
void set(T& to, float value) {
    to = static_cast<T>(value);
}
inline float get(bfloat16 from) { return to_float(from); }
inline float get(bfloat16x2 from) { return to_float(from); }
// As T keeps it.
template <class T>
float rounded(float value) {
    T stored;
    set(stored, value);
    return get(stored);
}
template <class T>
float get(T from) {
    return static_cast<float>(from);
}

// Where a matrix unit's kernels have the halves of bfloat16x2 in planes, `in_planes` says so; other types know none.
template <class T>
struct Integers {
    std::int64_t rows, columns, stride;
    bool in_planes;
    Guarded<T> memory;
    Integers(std::int64_t rows, std::int64_t columns, Flush flush, bool in_planes = false)
        : rows(rows),
          columns(columns),
          stride(in_planes && sizeof(T) == sizeof(bfloat16x2) ? (columns + 31) / 32 * 32 : columns),
          in_planes(in_planes),
          memory(rows * stride, flush) {
        fill([] { return static_cast<float>(small_integer()); });
    }
    // `number` for every element, row by row.
    template <class Number>
    void fill(Number number) {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) put(i, j, number());
    }
    // Now and then with more digits than one bfloat16 has; sums of products stay exact.
    void lengthen() {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                if (next_noise() >> 30 == 0) put(i, j, at(i, j) + (next_noise() >> 31 ? 512 : -512));
    }
    T stored(std::int64_t i, std::int64_t j) {
        if constexpr (std::is_same<T, bfloat16x2>::value)
            if (in_planes) return {high_half(i, j)[32], *high_half(i, j)};
        return memory[i * stride + j];
    }
    void store(std::int64_t i, std::int64_t j, T number) {
        if constexpr (std::is_same<T, bfloat16x2>::value)
            if (in_planes) {
                high_half(i, j)[0] = number.high, high_half(i, j)[32] = number.low;
                return;
            }
        memory[i * stride + j] = number;
    }
    void put(std::int64_t i, std::int64_t j, float value) {
        T number;
        set(number, value);
        store(i, j, number);
    }
    float at(std::int64_t i, std::int64_t j) { return get(stored(i, j)); }
    Rows<T> view() { return {memory.data(), stride}; }
    MutableRows<T> mutable_view() { return {memory.data(), stride}; }

private:
    bfloat16* high_half(std::int64_t i, std::int64_t j) {
        return reinterpret_cast<bfloat16*>(memory.data() + i * stride + j / 32 * 32) + j % 32;
    }
};

}  // namespace resnetcore

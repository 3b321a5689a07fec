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

template <class T>
struct Integers {
    std::int64_t rows, columns;
    Guarded<T> memory;
    Integers(std::int64_t rows, std::int64_t columns, Flush flush)
        : rows(rows), columns(columns), memory(rows * columns, flush) {
        for (std::int64_t i = 0; i < memory.size(); ++i) set(memory[i], static_cast<float>(small_integer()));
    }
    // Now and then with more digits than one bfloat16 has; sums of products stay exact.
    void lengthen() {
        for (std::int64_t i = 0; i < memory.size(); ++i)
            if (next_noise() >> 30 == 0) set(memory[i], get(memory[i]) + (next_noise() >> 31 ? 512 : -512));
    }
    float at(std::int64_t i, std::int64_t j) { return get(memory[i * columns + j]); }
    Rows<T> view() { return {memory.data(), columns}; }
    MutableRows<T> mutable_view() { return {memory.data(), columns}; }
};

}  // namespace resnetcore

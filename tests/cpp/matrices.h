// Matrices for the kernel tests: flush against forbidden pages, with a canary in the gap after every row, and filled
// from a generator that repeats.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include "check.h"
#include "guarded.h"
#include "kernels/select.h"

namespace resnetcore {

inline std::uint32_t noise = 1;
inline std::uint32_t next_noise() { return noise = noise * 1664525u + 1013904223u; }
inline int small_integer() { return static_cast<int>(next_noise() >> 29) - 3; }
// In [−1, 1), with as many digits as a float has.
inline double real() { return next_noise() * (1.0 / 2147483648.0) - 1; }

template <class T>
class MatrixOf {
public:
    enum class Fill { integers, reals, zeros };

    // `gap` elements lie between two rows, and hold a value that no kernel may change.
    MatrixOf(std::int64_t rows, std::int64_t columns, Flush flush, Fill fill = Fill::integers, std::int64_t gap = 0)
        : rows(rows), columns(columns), stride(columns + gap), memory(rows * stride - gap, flush) {
        for (std::int64_t i = 0; i < memory.size(); ++i) memory[i] = canary;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                at(i, j) = fill == Fill::zeros      ? T(0)
                           : fill == Fill::integers ? static_cast<T>(small_integer())
                                                    : static_cast<T>(real());
    }
    T& at(std::int64_t i, std::int64_t j) { return memory[i * stride + j]; }
    T* data() { return memory.data(); }
    Rows<T> view() { return {memory.data(), stride}; }
    MutableRows<T> mutable_view() { return {memory.data(), stride}; }

    bool gaps_untouched() {
        for (std::int64_t i = 0; i + 1 < rows; ++i)
            for (std::int64_t j = columns; j < stride; ++j)
                if (memory[i * stride + j] != canary) return false;
        return true;
    }
    bool same_bits(MatrixOf& other) {
        for (std::int64_t i = 0; i < rows; ++i)
            if (std::memcmp(&at(i, 0), &other.at(i, 0), static_cast<std::size_t>(columns) * sizeof(T)) != 0)
                return false;
        return true;
    }

    const std::int64_t rows, columns, stride;

private:
    static constexpr T canary = T(-12345.5);
    Guarded<T> memory;
};

// visit(kernels, name) for every instruction set of this machine, in both precisions.
template <class Visit>
void each_isa(Visit visit) {
    for (const Isa& isa : known_isas()) {
        if (!isa.compiled || !isa.supported) {
            std::printf("skipped %s: %s\n", isa.name.c_str(), isa.compiled ? "this CPU lacks it" : "not compiled");
            continue;
        }
        visit(*isa.f32, (isa.name + " float").c_str());
        visit(*isa.f64, (isa.name + " double").c_str());
    }
}

// Rounding unit of T.
template <class T>
constexpr double unit = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;

}  // namespace resnetcore

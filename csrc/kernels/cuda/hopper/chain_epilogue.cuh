// What follows a chain's sums: bias, skips, the activation or its derivative, and the way out, from a thread's
// registers to the next step's operand in shared memory, and to global memory along the rows.
//
// Invariant: the formulas and their order are those of forward.cu and backward_data.cu, so that a chain's bits are its
// steps'. Beyond a matrix's columns the chip holds zeros, which weights' rows of zeros meet.
#pragma once

#include "kernels/cuda/hopper/chain_program.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// A warpgroup's rows, and where boxes lie.
struct ChainTile {
    Shared boxes;            // of this warpgroup's rows: box i is i · chain_box_bytes on
    std::int64_t first_row;  // of 64
    std::int64_t rows;       // of the batch

    __device__ __forceinline__ Shared box(int i) const {
        return boxes + static_cast<std::uint32_t>(i) * chain_box_bytes;
    }
    __device__ __forceinline__ bool has(int row) const { return first_row + row < rows; }
};

// Eight neighbours, as they are stored.
struct alignas(16) Words {
    std::uint32_t at[4];
};

// Of 16 bytes in a box: column 8 · eighth of a row, as a copy would have swizzled it.
__device__ __forceinline__ Shared place_of(Shared box, int row, int eighth) {
    return box + static_cast<std::uint32_t>(row) * box_row + static_cast<std::uint32_t>((eighth ^ row) & 7) * 16;
}

__device__ __forceinline__ int warp_of_group() { return static_cast<int>(threadIdx.x) % group_threads / 32; }

__device__ __forceinline__ bfloat16 lower(std::uint32_t pair) { return {static_cast<std::uint16_t>(pair)}; }
__device__ __forceinline__ bfloat16 upper(std::uint32_t pair) { return {static_cast<std::uint16_t>(pair >> 16)}; }

// visit(eighth, half, x, y): two neighbours of the thread's sums, at columns 8 · eighth + 2t and the next, and row g
// or, in the second half, g + 8 of the warp's 16 (atoms.cuh, `multiply`).
template <int count, class Visit>
__device__ __forceinline__ void each_pair(float (&sums)[count], Visit visit) {
#pragma unroll
    for (int i = 0; i < count; i += 2) visit(i / 4, i % 4 / 2, sums[i], sums[i + 1]);
}
// The same in a loop, for what is too long to be there for every pair: registers have no index, so they move past it.
template <int count, class Visit>
__device__ __forceinline__ void each_pair_in_turn(float (&sums)[count], Visit visit) {
    constexpr int part = 8;
#pragma unroll 1
    for (int first = 0; first < count; first += part) {
        float now[part];
#pragma unroll
        for (int i = 0; i < part; ++i) now[i] = sums[i];
#pragma unroll
        for (int i = 0; i < part; i += 2) visit((first + i) / 4, i % 4 / 2, now[i], now[i + 1]);
#pragma unroll
        for (int i = 0; i + part < count; ++i) sums[i] = sums[i + part];
#pragma unroll
        for (int i = 0; i < part; ++i) sums[count - part + i] = now[i];
    }
}

// Of one operation, for the columns from `first_column` on.
template <int panels>
class ChainEpilogue {
public:
    static constexpr int count = panels * panel_width / 2;  // sums of a thread
    using Sums = float[count];

    __device__ __forceinline__ ChainEpilogue(const ChainProgram& program, const ChainOperation& operation,
                                             const ChainTile& tile, int first_column)
        : program_(program), op_(operation), tile_(tile), first_column_(first_column) {}

    // `most`: the largest magnitude of an output so far, as the bits of a bfloat16.
    __device__ __forceinline__ void finish(Sums& sums, std::uint32_t& most) const {
        if (op_.bias)
            each_pair(sums, [&](int eighth, int, float& x, float& y) {
                const int j = column(eighth);
                if (j < op_.columns) x = x + op_.bias[j];
                if (j + 1 < op_.columns) y = y + op_.bias[j + 1];
            });
        add_identities(sums);
        if (op_.kind == ChainOperation::Kind::forward)
            activate(sums);
        else
            differentiate(sums);
        __syncwarp();  // an output may lie where the warp has just read a skip
        leave(sums, most);
        __syncwarp();
        if (op_.out.data) write_rows();
    }

private:
    __device__ __forceinline__ int row(int half) const { return 16 * warp_of_group() + lane() / 4 + 8 * half; }
    __device__ __forceinline__ int column(int eighth) const { return first_column_ + 8 * eighth + 2 * (lane() % 4); }
    // Of a pair, among boxes that begin with that one.
    __device__ __forceinline__ Shared place(int first_box, int eighth, int half) const {
        const Shared box = tile_.box(first_box + first_column_ / box_width + eighth / 8);
        return place_of(box, row(half), eighth) + static_cast<std::uint32_t>(lane() % 4) * 4;
    }
    // Zeros where there are none.
    template <class T>
    __device__ __forceinline__ Stretch<float, 2> pair(const Rows<T>& rows, int eighth, int half) const {
        const std::int64_t i = tile_.first_row + row(half);
        const int j = column(eighth);
        if (!tile_.has(row(half)) || j >= op_.columns) return {{0, 0}};
        if (j + 1 < op_.columns) return read<2>(rows, i, j);
        return {{read(rows, i, j), 0}};
    }
    template <class T>
    __device__ __forceinline__ void write_pair(float x, float y, const MutableRows<T>& rows, int eighth,
                                               int half) const {
        const std::int64_t i = tile_.first_row + row(half);
        const int j = column(eighth);
        if (!tile_.has(row(half))) return;
        if (j < op_.columns) write(x, rows, i, j);
        if (j + 1 < op_.columns) write(y, rows, i, j + 1);
    }

    __device__ __forceinline__ void add_identities(Sums& sums) const {
#pragma unroll 1
        for (int s = 0; s < op_.n_identities; ++s) {
            const ChainIdentity& skip = program_.identities[op_.first_identity + s];
            if (skip.box >= 0)
                each_pair(sums, [&](int eighth, int half, float& x, float& y) {
                    if (!is_there(eighth)) return;
                    const std::uint32_t stored = load_word(place(skip.box, eighth, half));
                    x = x + to_float(lower(stored)), y = y + to_float(upper(stored));
                });
            else
                each_pair(sums, [&](int eighth, int half, float& x, float& y) {
                    const Stretch<float, 2> stored = pair(skip.rows, eighth, half);
                    x = x + stored.at[0], y = y + stored.at[1];
                });
        }
    }
    // Whether the output has a box there.
    __device__ __forceinline__ bool is_there(int eighth) const {
        return first_column_ + eighth / 8 * box_width < op_.columns;
    }

    __device__ __forceinline__ void activate(Sums& sums) const {
        if (op_.argument.data)
            each_pair_in_turn(
                sums, [&](int eighth, int half, float& x, float& y) { write_pair(x, y, op_.argument, eighth, half); });
        if (op_.is_relu)
            each_pair(sums, [](int, int, float& x, float& y) { x = Relu::forward(x), y = Relu::forward(y); });
        else
            visit_type(op_.activation, Activations{}, [&](auto g) {
                using G = decltype(g);
                if constexpr (!std::is_same<G, Identity>::value)
                    each_pair_in_turn(sums, [](int, int, float& x, float& y) { x = G::forward(x), y = G::forward(y); });
            });
        if (op_.wide.data)
            each_pair_in_turn(
                sums, [&](int eighth, int half, float& x, float& y) { write_pair(x, y, op_.wide, eighth, half); });
    }
    template <class G>
    __device__ __forceinline__ auto times_derivative() const {
        return [this](int eighth, int half, float& x, float& y) {
            const Stretch<float, 2> saved = pair(op_.in, eighth, half);
            x = x * derivative<G>(saved.at[0], op_.saved_is_argument);
            y = y * derivative<G>(saved.at[1], op_.saved_is_argument);
        };
    }
    __device__ __forceinline__ void differentiate(Sums& sums) const {
        if (op_.is_relu)
            each_pair(sums, times_derivative<Relu>());
        else
            visit_type(op_.activation, Activations{}, [&](auto g) {
                using G = decltype(g);
                if constexpr (!std::is_same<G, Identity>::value) each_pair_in_turn(sums, times_derivative<G>());
            });
    }

    // As the next step's operand.
    __device__ __forceinline__ void leave(Sums& sums, std::uint32_t& most) const {
        each_pair(sums, [&](int eighth, int half, float& x, float& y) {
            if (!is_there(eighth)) return;
            const int j = column(eighth);
            const std::uint32_t stored = pair_of(j < op_.columns ? x : 0, j + 1 < op_.columns ? y : 0);
            store_word(place(op_.first_box, eighth, half), stored);
            const std::uint32_t low = stored & 0x7fff, high = stored >> 16 & 0x7fff, larger = low > high ? low : high;
            if (larger > most && tile_.has(row(half))) most = larger;
        });
        fence_stores();
    }
    // The warp's rows, 16 bytes at a time.
    __device__ __forceinline__ void write_rows() const {
        constexpr int eighths = panels * panel_width / 8;
#pragma unroll 1
        for (int at = lane(); at < 16 * eighths; at += 32) {
            const int row = 16 * warp_of_group() + at / eighths, eighth = at % eighths;
            const int j = first_column_ + 8 * eighth;
            if (!tile_.has(row) || j >= op_.columns) continue;
            Words words;
            load_words(place_of(tile_.box(op_.first_box + j / box_width), row, eighth), words.at);
            bfloat16* const to = op_.out.data + (tile_.first_row + row) * op_.out.stride + j;
            if (j + 8 <= op_.columns)
                *reinterpret_cast<Words*>(to) = words;
            else
#pragma unroll
                for (int c = 0; c < 8; ++c)
                    if (j + c < op_.columns) to[c] = c % 2 == 0 ? lower(words.at[c / 2]) : upper(words.at[c / 2]);
        }
    }

    const ChainProgram& program_;
    const ChainOperation& op_;
    const ChainTile& tile_;
    int first_column_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

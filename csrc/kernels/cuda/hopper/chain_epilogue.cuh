// What follows a chain's sums: bias, skips, the activation or its derivative, and the way out, from a thread's
// registers to the next step's operand in shared memory, and to global memory along the rows.
//
// Invariant: the formulas and their order are those of forward.cu and backward_data.cu, so that a chain's bits are its
// steps'. Beyond a matrix's columns the chip holds zeros, which weights' rows of zeros meet.
#pragma once

#include <cstring>

#include "kernels/cuda/hopper/chain_program.cuh"
#include "kernels/cuda/hopper/chain_rows.cuh"
#include "kernels/cuda/hopper/passes.cuh"
#include "math/activation.h"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// A norm of the batch in an epilogue: there is none, in a chain without norms.
struct NoBranch {
    __device__ __forceinline__ static bool is_there() { return false; }
};
// Or z's place on the chip, and that of its columns' coefficients.
struct ChainBranch {
    int box;  // or −1
    Shared coefficients;
    __device__ __forceinline__ bool is_there() const { return box >= 0; }
};
// Center, scale and shift of a column, or what NormSlope has of it.
struct ChainColumn {
    float at[4] = {};
    __device__ __forceinline__ ChainColumn() {}
    __device__ __forceinline__ ChainColumn(Shared columns, int j) {
        load(place(columns, j), at[0], at[1], at[2], at[3]);
    }
    __device__ __forceinline__ void store_at(Shared columns, int j) const {
        store(place(columns, j), at[0], at[1], at[2], at[3]);
    }

private:
    static __device__ __forceinline__ Shared place(Shared columns, int j) {
        return columns + static_cast<std::uint32_t>(j) * static_cast<std::uint32_t>(sizeof(ChainColumn));
    }
};

// A warpgroup's rows, and where boxes lie.
struct ChainTile {
    Shared boxes;  // of this warpgroup's rows: box i is i · box_bytes on
    std::uint32_t box_bytes;
    int first_row, rows;  // from there on

    __device__ __forceinline__ Shared box(int i) const { return boxes + static_cast<std::uint32_t>(i) * box_bytes; }
    __device__ __forceinline__ bool has(int row) const { return row < rows; }
};

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

// Of one operation, for the 64 columns from `first_column` on. A few warps are all that a multiprocessor has: so what
// comes from global memory is asked for when the epilogue is made, before its sums are waited for, and nothing is asked
// of a pair that can be asked of all of them. `fused`: there may be norms, and passes.
template <bool fused>
class ChainEpilogue {
public:
    static constexpr int count = box_width / 2;  // sums of a thread
    using Sums = float[count];

    __device__ __forceinline__ ChainEpilogue(const ChainProgram& program, const ChainOperation& operation,
                                             const ChainTile& tile, int first_column)
        : program_(program), op_(operation), tile_(tile), first_column_(first_column) {
        if (fused && op_.passes && op_.kind == ChainOperation::Kind::backward) {
            if (tile_.has(0)) ahead_[0] = op_.passes[pass_word()];
        } else if (op_.in.data) {
            BoxWords words;
            rows_of_box().read(op_.in, words);
#pragma unroll
            for (int i = 0; i < count / 2; ++i) ahead_[i] = words[i / 4].at[i % 4];
        } else if (op_.bias) {
            const float* const bias = op_.bias + column(0);
            const int left = op_.columns - column(0);
#pragma unroll
            for (int i = 0; i < count / 2; ++i) {
                const int j = i / 2 * 8 + i % 2;
                const float x = is_whole() || j < left ? bias[j] : 0;
                std::memcpy(&ahead_[i], &x, sizeof x);
            }
        }
    }

    // Of rows that the chain has not made itself: they are there, with zeros where there are none.
    __device__ __forceinline__ void load_rows() const {
        store_ahead();
        fence_stores();
    }
    // The largest magnitudes of this output, at even columns and at odd ones, as the bits of bfloat16.
    template <class Branch>
    __device__ __forceinline__ std::uint32_t finish(Sums& sums, const Branch& branch) {
        thread_ = {};  // nothing that was worked out of it is kept while products are waited for
        if (op_.bias)
            each_pair(sums, [&](int eighth, int, float& x, float& y) {
                float of_x, of_y;
                std::memcpy(&of_x, &ahead_[2 * eighth], sizeof of_x);
                std::memcpy(&of_y, &ahead_[2 * eighth + 1], sizeof of_y);
                x = x + of_x, y = y + of_y;
            });
        add_identities(sums);
        if constexpr (fused)
            if (branch.is_there()) add_branch(sums, branch);
        if (op_.kind == ChainOperation::Kind::forward)
            activate(sums);
        else if (fused && op_.passes)
            let_pass(sums);
        else if (op_.in.data)
            differentiate(sums);
        __syncwarp();  // an output may lie where the warp has just read a skip
        const std::uint32_t most = leave(sums);
        if (op_.out.data) {
            __syncwarp();
            BoxWords words;
            const BoxRows rows = rows_of_box();
            rows.load(box(), words);
            rows.write(words, op_.out);
        }
        return most;
    }

private:
    __device__ __forceinline__ void store_ahead() const {
        BoxWords words;
#pragma unroll
        for (int i = 0; i < count / 2; ++i) words[i / 4].at[i % 4] = ahead_[i];
        rows_of_box().store(box(), words);
    }
    __device__ __forceinline__ bool is_whole() const { return first_column_ + box_width <= op_.columns; }
    __device__ __forceinline__ int row(int half) const {
        return thread_.first_row() + static_cast<int>(thread_.number % 32 / 4) + 8 * half;
    }
    __device__ __forceinline__ int column(int eighth) const {
        return first_column_ + 8 * eighth + 2 * static_cast<int>(thread_.number % 4);
    }
    __device__ __forceinline__ BoxRows rows_of_box() const {
        return {tile_.first_row, tile_.rows, first_column_, op_.columns};
    }
    __device__ __forceinline__ std::int64_t pass_word() const {
        return pass_place(tile_.first_row, first_column_, op_.columns) + thread_.number;
    }
    __device__ __forceinline__ Shared box() const { return tile_.box(op_.first_box + first_column_ / box_width); }
    // Of the thread's first pair in a box, and of others from there: eight rows on is the same place of the pattern.
    __device__ __forceinline__ Shared first_place(Shared box) const {
        return place_of(box, row(0), 0) + thread_.number % 4 * 4;
    }
    static __device__ __forceinline__ Shared place(Shared first, int eighth, int half) {
        return (first ^ static_cast<std::uint32_t>(eighth) * 16) + static_cast<std::uint32_t>(half) * atom_bytes;
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
            if (skip.box >= 0) {
                const Shared first = first_place(tile_.box(skip.box + first_column_ / box_width));
                std::uint32_t stored[count / 2];
                each_pair(sums, [&](int eighth, int half, float&, float&) {
                    stored[2 * eighth + half] = load_word(place(first, eighth, half));
                });
                each_pair(sums, [&](int eighth, int half, float& x, float& y) {
                    const std::uint32_t two = stored[2 * eighth + half];
                    x = x + to_float(lower(two)), y = y + to_float(upper(two));
                });
            } else {
                each_pair_in_turn(sums, [&](int eighth, int half, float& x, float& y) {
                    const Stretch<float, 2> stored = pair(skip.rows, eighth, half);
                    x = x + stored.at[0], y = y + stored.at[1];
                });
            }
        }
    }

    __device__ __forceinline__ void add_branch(Sums& sums, const ChainBranch& branch) const {
        const Shared first = first_place(tile_.box(branch.box + first_column_ / box_width));
#pragma unroll
        for (int eighth = 0; eighth < count / 4; ++eighth) {
            const ChainColumn norm[2] = {{branch.coefficients, column(eighth)},
                                         {branch.coefficients, column(eighth) + 1}};
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const Stretch<float, 2> z = numbers_of(load_word(place(first, eighth, half)));
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    float& x = sums[4 * eighth + 2 * half + c];
                    x = x + normalise(z.at[c], norm[c].at[0], norm[c].at[1], norm[c].at[2]);
                }
            }
        }
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
        return [this, first = first_place(box())](int eighth, int half, float& x, float& y) {
            const std::uint32_t saved = load_word(place(first, eighth, half));
            x = x * derivative<G>(to_float(lower(saved)), op_.saved_is_argument);
            y = y * derivative<G>(to_float(upper(saved)), op_.saved_is_argument);
        };
    }
    __device__ __forceinline__ void let_pass(Sums& sums) const {
        each_pair(sums, [&](int eighth, int half, float& x, float& y) {
            const Stretch<float, 2> slopes = slopes_of(ahead_[0], 2 * eighth + half);
            x = x * slopes.at[0], y = y * slopes.at[1];
        });
    }
    // What was saved came along the rows, and goes to where the sums are by way of the output's room.
    __device__ __forceinline__ void differentiate(Sums& sums) const {
        __syncwarp();  // the warp has just read a skip there
        store_ahead();
        __syncwarp();
        if (op_.is_relu)
            each_pair(sums, times_derivative<Relu>());
        else
            visit_type(op_.activation, Activations{},
                       [&](auto g) { each_pair_in_turn(sums, times_derivative<decltype(g)>()); });
    }

    // As the next step's operand.
    __device__ __forceinline__ std::uint32_t leave(Sums& sums) const {
        if (!is_whole())
            each_pair(sums, [&](int eighth, int, float& x, float& y) {
                const int j = column(eighth);
                if (j >= op_.columns) x = 0;
                if (j + 1 >= op_.columns) y = 0;
            });
        const Shared first = first_place(box());
        std::uint32_t most_of_half[2] = {};
        PassBits passes;
        each_pair(sums, [&](int eighth, int half, float& x, float& y) {
            const std::uint32_t stored = pair_of(x, y);
            store_word(place(first, eighth, half), stored);
            most_of_half[half] = larger_of_each(most_of_half[half], stored & 0x7fff7fff);
            if constexpr (fused) passes.add(stored & 0x7fff7fff);
        });
        fence_stores();
        if constexpr (fused)
            if (op_.passes && op_.kind == ChainOperation::Kind::forward && tile_.has(0))
                op_.passes[pass_word()] = passes.word();
        return larger_of_each(tile_.has(row(0)) ? most_of_half[0] : 0, tile_.has(row(1)) ? most_of_half[1] : 0);
    }

    const ChainProgram& program_;
    const ChainOperation& op_;
    const ChainTile& tile_;
    const int first_column_;
    GroupThread thread_;
    std::uint32_t ahead_[count / 2];  // a thread's words of what g′ is taken of, its passes, or its columns' bias
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

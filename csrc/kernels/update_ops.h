// The arguments of weights' gradients and of optimizers' updates, a part of ops.h, which says what T, Compute<T>,
// packed weights and operands are and whose memory it is.
//
// Invariant: nothing that is trained changes unless the step's outcome permits it.
#pragma once

#include <cstdint>

#include "kernels/rows.h"
#include "math/bfloat16.h"
#include "math/optimizer.h"

namespace resnetcore {

// What a batch's loss decided about its update. Kernels that change what is trained take a pointer to one, and do
// nothing unless it permits; null always does.
struct Outcome {
    double loss = 0;
    std::int32_t finite = 1;        // the loss is
    std::int32_t may_overflow = 0;  // the update might leave something NaN or infinite
    std::int32_t follows = 0;       // a step that was not permitted, which the host has not seen yet
};
RC_HD bool permits(const Outcome* outcome) {
    return !outcome || (outcome->finite && !outcome->may_overflow && !outcome->follows);
}

// A parameter array as an optimizer sees it; states are null where the optimizer has none.
template <class T>
struct Slot {
    T* value = nullptr;
    T* state[2] = {nullptr, nullptr};
};

// What the products read of a weight. `panels` is null where the parameter is its own operand.
template <class T>
struct Operands {
    T* panels = nullptr;
    T* transposed = nullptr;
};

// Weight gradients are sums over this many rows at a time, added in the order of the rows, or, on a matrix unit, sums
// that go on in that order: so on the CPU a batch gives the same bits whether one call sees all of it or each call some
// stretches.
constexpr std::int64_t gradient_stretch = 128;

// In bfloat16 a stretch's rows of A and of δ are interleaved first, two by two, or those of A made floats, and in
// bfloat16x2 the halves of δ are laid out as a weight's; on a matrix unit A's numbers along its columns, and the pairs
// of δ, each half for itself. The distance of two such rows of A is no power of two, which would put them all into a
// few cache sets. (Wide vectors of floats have a tile's columns of A side by side.) KernelTable::stretch_room says how
// much room that needs.
RC_HD std::int64_t pair_stride(std::int64_t inner) { return (inner + 15) / 16 * 16 + 16; }

// Rows that a kernel lays out together: a stretch, or as many as make `most` numbers of A, up to four.
RC_HD std::int64_t laid_out_rows(std::int64_t inner, std::int64_t most) {
    const std::int64_t stretches = most / (gradient_stretch * pair_stride(inner));
    return gradient_stretch * (stretches < 1 ? 1 : stretches > 4 ? 4 : stretches);
}

// Panels whose sums wait in memory together, between stretches, where nothing else is said.
constexpr std::int64_t panels_of_sums = 4;

// dW = Aᵀ·δ over all rows, for the panels [first_panel, last_panel) of W, and db = Σ_rows δ for their columns.
// With `gradient` set, the packed gradient is written there (added, if `accumulate`); `weight` is untouched.
// Otherwise the optimizer is applied to `weight` and its operands are refreshed. The same holds for the bias.
// Several calls that are made in one have the same rows, destination and permission.
template <class T>
struct BackwardWeightsArgs {
    std::int64_t rows = 0, inner = 0, columns = 0;
    std::int64_t first_panel = 0, last_panel = 0;
    Rows<T> a, delta;
    Compute<T>* gradient = nullptr;       // packed, whole matrix
    Compute<T>* bias_gradient = nullptr;  // (columns)
    bool accumulate = false;
    bool has_bias = false;
    Slot<Compute<T>> weight;  // packed, whole matrix
    Operands<T> operands;     // of the whole matrix
    Slot<Compute<T>> bias;
    int optimizer = 0;  // index into Optimizers
    const Hyper<Compute<T>>* weight_hyper = nullptr;
    const Hyper<Compute<T>>* bias_hyper = nullptr;
    const Outcome* permission = nullptr;  // of the optimizer; gradients are always taken
    // Private to the calling thread. `sums`: inner * panel elements for each panel, or for `waiting_panels` where there
    // are more; not used where `gradient` is set. `room`: KernelTable::stretch_room.
    std::int64_t waiting_panels = panels_of_sums;
    Compute<T>* sums = nullptr;
    T* room = nullptr;
};

// The optimizer on a materialised packed gradient: panels [first_panel, last_panel), and their operands.
template <class T>
struct UpdateArgs {
    std::int64_t inner = 0, columns = 0;
    std::int64_t first_panel = 0, last_panel = 0;
    const Compute<T>* gradient = nullptr;
    Slot<Compute<T>> weight;
    Operands<T> operands;
    int optimizer = 0;
    const Hyper<Compute<T>>* hyper = nullptr;
    const Outcome* permission = nullptr;
};

// What is done to short vectors is done to as many of them in one call: on a device that works on its own, most of the
// time that one takes is that of the call.
constexpr int vectors_of_call = 64;

// The optimizer on plain vectors (biases, norms' weights and biases).
template <class T>
struct UpdatedVector {
    std::int64_t size = 0;
    const Compute<T>* gradient = nullptr;
    Slot<Compute<T>> slot;
    const Hyper<Compute<T>>* hyper = nullptr;
};
template <class T>
struct UpdateVectorsArgs {
    UpdatedVector<T> vectors[vectors_of_call];
    int count = 0;
    int optimizer = 0;
    const Outcome* permission = nullptr;
};

}  // namespace resnetcore

// Where one run of a plan finds its buffers, and what a batch is compared with.
#pragma once

#include <cstdint>

#include "kernels/ops.h"
#include "topology/plan.h"

namespace resnetcore {

template <class T>
constexpr Storage storage_of{sizeof(T), row_alignment<T>};

// What a batch is compared with, whole-batch arrays; see LossArgs.
template <class T>
struct LossTarget {
    int loss = 0;
    const std::int64_t* labels = nullptr;
    Rows<Compute<T>> targets;
    const Compute<T>* class_weight = nullptr;
    const Compute<T>* sample_weight = nullptr;
    double label_smoothing = 0, delta = 1;
    const double* normaliser = nullptr;
    std::int64_t class_weights = 0;
    double* row_loss = nullptr;
    double* loss_sums = nullptr;  // the frame's, where the device's kernels take them
};

// Where the buffers of one run are, all in memory of the device. `rows` is the capacity that the arena was laid out
// for, and `tile` has those of rows [tile_begin, tile_begin + tile_rows) alone.
template <class T>
struct Frame {
    Rows<Compute<T>> input;
    T* arena = nullptr;
    T* tile = nullptr;
    std::int64_t tile_begin = 0, tile_rows = 0;
    T* kept = nullptr;                // where the plan's kept elements lie instead, of a plan that has them
    Rows<Compute<T>> given;           // ∂E/∂outputs, of a plan that is given it
    MutableRows<Compute<T>> outputs;  // of forward alone: a copy of what is kept
    std::int64_t rows = 0;
    BufferId output =
        -1;  // this buffer lies in `output_rows` instead of the arena, or is copied there if it is narrower
    MutableRows<Compute<T>> output_rows;
    MutableRows<Compute<T>> logits;      // what the loss reads, where T does not compute itself
    std::int64_t first_row = 0;          // of the frame in its batch: dropout and targets count from the batch's start
    bool continues = false;              // the step of the frame before: gradients are added to its own
    bool measured = false;               // what gradients are made of, for an update that could overflow
    const PhiloxKey* dropout = nullptr;  // seed and step; the purpose is each site's
    LossTarget<T> target;
};

}  // namespace resnetcore

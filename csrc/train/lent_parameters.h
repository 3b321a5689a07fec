// Parameters that a framework lends for a call, and their gradients back: between its layout and the kernels'.
//
// Invariant: nothing of them is kept from call to call. Weights are read, and gradients of layers written, in parts
// that stay in cache meanwhile, by whichever thread comes first; every number has one writer.
#pragma once

#include <cstdint>
#include <vector>

#include "train/model.h"
#include "train/weight_gradients.h"

namespace resnetcore {

// What of a parameter a pass reads: what forward does, what backward does, or both.
enum class Half { forward, backward, both };

// Where the gradients of a call go, by parameter; null of one that is not trained.
template <class T>
using GradientArrays = std::vector<Compute<T>*>;

template <class T>
class LentParameters {
public:
    // Matrices and their gradients are (out, in) where they are `transposed`, else (in, out).
    LentParameters(Model<T>& model, bool transposed);

    // What the next pass is lent, by parameter, and where it is to leave gradients, or null: both are the caller's, and
    // forgotten with the loan.
    struct Loan {
        LentParameters& of;
        ~Loan() { of.lent_ = nullptr, of.to_ = nullptr; }
    };
    [[nodiscard]] Loan lend(const std::vector<const Compute<T>*>& values, Half half,
                            const GradientArrays<T>* gradients);
    // Makes room for a team of so many; everything that can fail for lack of memory is done here.
    void prepare(int threads);
    // What becomes of the sums of a pass, `by_tile` or by layer.
    using Kept = typename WeightGradients<T>::Kept;
    Kept kept(bool by_tile) const { return by_tile || !model_.device().is_host() ? Kept::in_arrays : Kept::apart; }

    // The following are called by every thread of a team, and the first and the last end in a barrier.
    // Writes what was lent to the model's store.
    void write(Team& team);
    // `WeightGradients::take_units`; sums that are kept apart go where they are to be.
    void take_units(WeightGradients<T>& gradients, WorkQueue& queue, int thread, const BatchExecutor<T>& executor,
                    const Frame<T>& frame);
    // The norms' gradients, and those that are in arrays.
    void give(Team& team, const WeightGradients<T>& gradients, Kept kept);

private:
    // A vector; or some panels of what forward reads of a matrix, and as large a part of what backward does.
    struct Piece {
        int id;
        PackedPart part;
    };
    void unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* packed, Compute<T>* to);

    Model<T>& model_;
    const bool transposed_;
    const std::vector<const Compute<T>*>* lent_ = nullptr;
    const GradientArrays<T>* to_ = nullptr;
    Half half_ = Half::both;
    std::vector<Piece> pieces_;
    bool past_caches_ = false;
    WorkQueue write_queue_, give_queue_;
    AlignedArray<Compute<T>> row_major_;  // a weight's gradient, before a device gathers it
};

extern template class LentParameters<float>;
extern template class LentParameters<double>;
extern template class LentParameters<bfloat16>;
extern template class LentParameters<bfloat16x2>;

}  // namespace resnetcore

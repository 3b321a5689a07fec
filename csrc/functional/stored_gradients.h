// The block's gradients, and its update, as a caller stores them: what is wanted alone, each with a stride of its own,
// rounded to T or as it was summed. All of it is memory of the arguments' device.
//
// What the kernels do not write to the caller is in rooms of the call's, which are made before anything runs.
#pragma once

#include <vector>

#include "functional/residual.h"

namespace resnetcore {

// One of the two, or neither, where it is not wanted. Where T computes itself, `rounded` is what there is.
template <class T>
struct StoredSum {
    MutableRows<T> rounded;
    MutableRows<Compute<T>> wide;
};

template <class T>
struct StoredGradients {
    std::vector<MutableRows<T>> sources;  // (rows, K_s) each, or none at all
    std::vector<StoredSum<T>> weights;    // (K_s, columns) each, or none at all
    StoredSum<T> bias;                    // (1, columns)
    std::vector<MutableRows<T>> deltas;   // (rows, columns): δ, as often as it is wanted
};

template <class T>
void residual_backward(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                       const StoredGradients<T>& out);

// The weights and the bias of the arguments, to be written to; no bias has no data. On a device that is not the host,
// rows or columns are contiguous.
template <class T>
struct TrainedMatrices {
    std::vector<Strided<T>> weights;
    Strided<T> bias;
};

// The same, where `out` wants no gradients of these; and then W_s ← W_s − η·A_sᵀ·δ, b ← b − η·Σ_rows δ.
template <class T>
void residual_update(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                     const TrainedMatrices<T>& trained, double lr, const StoredGradients<T>& out);

extern template void residual_backward(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                       const StoredGradients<float>&);
extern template void residual_backward(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                       const StoredGradients<double>&);
extern template void residual_backward(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                       const StoredGradients<bfloat16>&);
extern template void residual_update(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                     const TrainedMatrices<float>&, double, const StoredGradients<float>&);
extern template void residual_update(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                     const TrainedMatrices<double>&, double, const StoredGradients<double>&);
extern template void residual_update(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                     const TrainedMatrices<bfloat16>&, double, const StoredGradients<bfloat16>&);

}  // namespace resnetcore

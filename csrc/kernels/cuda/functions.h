// What the table holds: each function is in the .cu file of its stem, instantiated there for every type of storage.
#pragma once

#include "kernels/cuda/module.h"
#include "kernels/ops.h"

namespace resnetcore {
namespace cuda {

// A panel is as wide as a block's tile, so that a block reads whole rows of it.
constexpr int panel_width = 64;
// A grid's second dimension, which counts panels, ends here.
constexpr std::int64_t max_columns = std::int64_t{65535} * panel_width;
// Lists of sources and of identities travel as parameters of a kernel, which may be 32,764 bytes.
constexpr int max_terms = 512;
// Blocks that go through a gradient: enough for its memory to be read as fast as it can be.
constexpr int square_parts = 64;
// A block's: few enough that a batch of ten thousand keeps all multiprocessors busy.
constexpr int loss_rows = 64;

template <class T>
void forward(const ForwardArgs<T>& args);
template <class T>
void backward_data(const BackwardDataArgs<T>& args);
template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args);
template <class T>
void backward_all_weights(const BackwardWeightsArgs<T>* calls, std::int64_t count);
template <class T>
void update(const UpdateArgs<T>& args);
template <class T>
void update_vectors(const UpdateVectorsArgs<T>& args);
template <class T>
void moments(const MomentsArgs<T>& args);
template <class T>
void norm_sums(const NormSumsArgs<T>& args);
template <class T>
void norm_backward(const NormBackwardArgs<T>& args);
template <class T>
void gate(const GateArgs<T>& args);
template <class T>
void gate_backward(const GateBackwardArgs<T>& args);
template <class T>
void dropout(const DropoutArgs<T>& args);
template <class T>
void loss(const LossArgs<T>& args);
template <class T>
void combine_moments(const CombineMomentsArgs<T>& args);
template <class T>
void combine_norm_sums(const CombineNormSumsArgs<T>& args);
constexpr std::int64_t joined_rows = 8192;  // blocks of 8 columns keep a GPU busy up to here
template <class T>
void apply_norm(const CombineMomentsArgs<T>& combine, const ForwardArgs<T>& args);
template <class T>
void undo_norm(const CombineNormSumsArgs<T>& combine, const NormBackwardArgs<T>& args);
template <class T>
void running_coefficients(const RunningCoefficientsArgs<T>& args);
template <class T>
void fold(const FoldArgs<T>& args);
template <class T>
void largest(const LargestArgs<T>& args);
template <class T>
void conclude(const ConcludeArgs<T>& args);
template <class T>
void commit(const CommitArgs<T>& args);
template <class T>
void squares(const SquaresArgs<T>& args);
template <class T>
void clip(const ClipArgs<T>& args);
template <class T>
void scale(const ScaleArgs<T>& args);
template <class T>
void overflowed(const OverflowedArgs<T>& args);
template <class T>
void pack(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels);
template <class T>
void unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w);
template <class T>
void pack_operand(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
template <class T>
void pack_transposed(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
template <class T>
void narrow(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out, double* largest);
template <class T>
void widen(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out);
template <class T>
std::int64_t chain(const ChainArgs<T>& args);
template <class T>
std::int64_t longest_chain();
template <class T>
bool chains_norms();
template <class T>
std::int64_t pass_words(std::int64_t rows, std::int64_t columns);

int gather(const GatherArgs* args);

// What a .cu file ends with, for each type of storage.
#define RC_EACH_STORAGE(instantiate) \
    instantiate(float) instantiate(double) instantiate(bfloat16) instantiate(bfloat16x2)

}  // namespace cuda
}  // namespace resnetcore

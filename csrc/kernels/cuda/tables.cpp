#include "kernels/cuda/tables.h"

#include "kernels/cuda/functions.h"

namespace resnetcore {
namespace cuda {
namespace {

constexpr int row_block = 64;  // rows of a block's tile
constexpr bool keeps_largest = true;
// A device that gathers does without.
template <class T>
constexpr decltype(KernelTable<T>::unpack_transposed) unpack_transposed = nullptr;

template <class T>
constexpr KernelTable<T> table = {panel_width,
                                  row_block,
                                  1,
                                  max_terms,
                                  0,
                                  [](std::int64_t, std::int64_t) { return std::int64_t{0}; },
                                  forward<T>,
                                  backward_data<T>,
                                  backward_weights<T>,
                                  update<T>,
                                  update_vectors<T>,
                                  moments<T>,
                                  norm_sums<T>,
                                  norm_backward<T>,
                                  gate<T>,
                                  gate_backward<T>,
                                  dropout<T>,
                                  loss<T>,
                                  combine_moments<T>,
                                  combine_norm_sums<T>,
                                  running_coefficients<T>,
                                  fold<T>,
                                  largest<T>,
                                  conclude<T>,
                                  commit<T>,
                                  squares<T>,
                                  clip<T>,
                                  scale<T>,
                                  overflowed<T>,
                                  pack<T>,
                                  unpack<T>,
                                  unpack_transposed<T>,
                                  pack_operand<T>,
                                  pack_transposed<T>,
                                  narrow<T>,
                                  widen<T>,
                                  chain<T>,
                                  longest_chain<T>,
                                  chains_norms<T>,
                                  pass_words<T>,
                                  backward_all_weights<T>,
                                  keeps_largest,
                                  joined_rows,
                                  apply_norm<T>,
                                  undo_norm<T>,
                                  square_parts,
                                  loss_rows};

}  // namespace

const KernelTable<float>* f32() { return &table<float>; }
const KernelTable<double>* f64() { return &table<double>; }
const KernelTable<bfloat16>* bf16() { return &table<bfloat16>; }
const KernelTable<bfloat16x2>* bf16x2() { return &table<bfloat16x2>; }

}  // namespace cuda
}  // namespace resnetcore

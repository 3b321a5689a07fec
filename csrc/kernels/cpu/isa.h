// Instantiates every kernel for one instruction set. A translation unit defines
//     RC_ISA           its namespace and the name of its table
//     RC_VECTOR_BYTES  the width of its vectors
//     RC_TILE_ROWS     rows of the register tile: 2·rows accumulators and 3 more must fit its registers
//     RC_TILE_UNIT     the header of a unit that multiplies tiles of bfloat16, where there is one
//     RC_BFLOAT16_ONLY where it adds instructions for bfloat16 to a set that has a translation unit of its own: without
//                      them bfloat16x2 is not worth having
// and includes this once. Everything lands in an unnamed namespace: only the table getters leave the object file,
// so that the linker can never give one instruction set's code to another.
#if !defined(RC_TILE_UNIT) && !defined(__AVX512BF16__)
#define RC_WIDENS  // bfloat16 is multiplied as floats
#endif
#if defined(RC_MOST_TILE_ROWS) && !defined(RC_TILE_UNIT) && RC_MOST_TILE_ROWS < RC_TILE_ROWS
#undef RC_TILE_ROWS
#define RC_TILE_ROWS RC_MOST_TILE_ROWS
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels/columns.h"
#include "kernels/ops.h"
#include "math/activation.h"
#include "math/gate.h"
#include "math/loss.h"

namespace resnetcore {
namespace RC_ISA {
namespace {

#if defined(RC_TILE_UNIT)
// Here the halves of bfloat16x2 lie in planes (vector_bfloat16x2.h), and an operand's as well: a number takes one
// element.
template <class T>
constexpr std::int64_t operand_parts = 1;
template <class T>
RC_HD std::int64_t operand_rows(std::int64_t inner) {
    return computes_itself<T> ? inner : (inner + 31) / 32 * 32;
}
#endif

// clang-format off: each uses those before it
#include "kernels/cpu/vector.h"
#include "kernels/cpu/vector_bfloat16.h"
#include "kernels/cpu/vector_bfloat16x2.h"
#include "kernels/cpu/vector_both.h"
#include "kernels/cpu/panel_columns.h"
#include "kernels/cpu/vector_functions.h"
#include "kernels/cpu/register_tile.h"
#include "kernels/cpu/stored_blocks.h"
#if defined(RC_TILE_UNIT)
#include RC_TILE_UNIT
#include "kernels/cpu/tile_kernel.h"
#else
#include "kernels/cpu/accumulate.h"
#if !defined(RC_WIDENS)
#include "kernels/cpu/accumulate_pairs.h"
#endif
#include "kernels/cpu/narrow.h"
#include "kernels/cpu/micro_kernel.h"
#endif
#include "kernels/cpu/epilogue.h"
#include "kernels/cpu/largest.h"
#if defined(RC_WIDENS)
#include "kernels/cpu/widened_kernel.h"
#elif defined(RC_TILE_UNIT)
#include "kernels/cpu/tile_panels.h"
#endif
#include "kernels/cpu/forward.h"
#include "kernels/cpu/backward_data.h"
#include "kernels/cpu/stretch.h"
#if defined(RC_TILE_UNIT)
#include "kernels/cpu/tile_stretch.h"
#else
#include "kernels/cpu/register_stretch.h"
#if defined(RC_WIDENS)
#include "kernels/cpu/widened_stretch.h"
#else
#include "kernels/cpu/paired_stretch.h"
#endif
#endif
#include "kernels/cpu/panels.h"
#include "kernels/cpu/backward_weights.h"
#include "kernels/cpu/normalisation.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/loss_rows.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/step.h"
// clang-format on

#if defined(RC_WIDENS)
constexpr bool widens = true;
#else
constexpr bool widens = false;
#endif
#if defined(RC_TILE_UNIT)
constexpr int row_block = tile_height;
template <class T>
constexpr int product_speed = planes<T> == 2 ? 2 : 8;
#else
constexpr int row_block = 1;
template <class T>
constexpr int product_speed = computes_itself<T> || widens ? 1 : 2;
#endif

// What a table's functions of packing past the caches are: none where lines are longer than vectors.
template <class T, class To>
struct Packing {
    static constexpr auto unpack_transposed = &RC_ISA::unpack_transposed<T, To>;
    static constexpr auto pack_operand = &RC_ISA::pack_operand<T, To>;
    static constexpr auto pack_transposed = &RC_ISA::pack_transposed<T, To>;
};
template <class T>
struct Packing<T, void> {
    static constexpr std::nullptr_t unpack_transposed = nullptr, pack_operand = nullptr, pack_transposed = nullptr;
};

template <class T>
constexpr KernelTable<T> table = {2 * lanes_of<T>,
                                  row_block,
                                  product_speed<T>,
                                  0,
                                  most_laid_out<T>,
                                  Stretch<T>::room,
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
                                  nullptr,
                                  nullptr,
                                  nullptr,
                                  nullptr,
                                  nullptr,
                                  keeps_largest,
                                  0,
                                  nullptr,
                                  nullptr,
                                  1,
                                  1,
                                  operand_parts<T>,
                                  Packing<T, PastCaches>::unpack_transposed,
                                  Packing<T, PastCaches>::pack_operand,
                                  Packing<T, PastCaches>::pack_transposed};

}  // namespace

#if defined(RC_BFLOAT16_ONLY)
const KernelTable<bfloat16x2>* bf16x2() { return &table<bfloat16x2>; }
#else
const KernelTable<float>* f32() { return &table<float>; }
const KernelTable<double>* f64() { return &table<double>; }
#endif
const KernelTable<bfloat16>* bf16() { return &table<bfloat16>; }

}  // namespace RC_ISA
}  // namespace resnetcore

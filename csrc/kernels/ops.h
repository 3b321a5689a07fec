// The kernels' whole interface: argument structs and the table of functions that one instruction set offers.
//
// Invariant: arguments are checked before they get here. Kernels never allocate, throw or lock, and a kernel call
// touches only the rows and panels it is given, so that any partition of the work gives the same bits.
//
// Memory. Argument structs, and the lists of sources and identities they point to, are the caller's and are read before
// a call returns. Everything else they point to is memory of the device whose table it is (runtime/device.h), which a
// device that works on its own reads and writes later, in the order of the calls. So nothing that changes from step to
// step is passed by value: a recorded sequence of calls can be played again.
//
// T is what activations, their gradients and the products' operands are stored as; Compute<T> what everything else is:
// sums, parameters, statistics, losses. They differ for bfloat16 and bfloat16x2 alone.
//
// Packed weights. A matrix W (inner, columns) is cut into panels of `KernelTable::panel` columns; panel p is
// contiguous, [inner][panel], and its last panel is padded with zeros. Parameters, gradients and optimizer states are
// kept so, in Compute<T>; `packed_size(inner, columns, panel)` is their number of elements.
//
// Operands. What the products read is of T: the packed weight, and the packed Wᵀ (columns, inner). In float and double
// the first is the parameter itself. In bfloat16 both are copies, and rows of a panel come in pairs, as the dot
// instructions take them: [rows / 2][panel][2]. In bfloat16x2 an activation is such a pair itself, and meets each half
// of a weight in both places: [rows][high, low][panel][2]. On a matrix unit the halves of activations lie in planes,
// and those of operands as two of bfloat16: [rows / 32][high, low][16][panel][2]. Rows of zeros make them a multiple of
// 32, the depth of such a unit's tile, which is so read whole; `operand_size` counts them, `pack_*` write them, and
// nothing else does.
//
// Rows of bfloat16x2 begin at a multiple of `row_alignment`, for the sake of those planes: what a number's address says
// is where its halves are. Only kernels of the table that wrote a row can read it.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/norm_ops.h"
#include "kernels/rows.h"
#include "kernels/update_ops.h"
#include "math/bfloat16.h"
#include "math/random.h"

namespace resnetcore {

// Rows of a matrix that another library may have made, dense and in what a network computes with, or in the integers
// that labels are. Not in the table of kernels: the host has NumPy for it.
struct GatherArgs {
    enum Type : int { f32, f64, bf16, i32, i64 };

    std::int64_t rows = 0, columns = 0;
    const void* from = nullptr;
    Type from_type = f32;
    std::int64_t row_stride = 0, column_stride = 0;  // in elements
    const std::int64_t* chosen = nullptr;            // numbers of the rows; null: the first ones
    void* to = nullptr;
    Type to_type = f32;  // or f64; i64 from integers
};

inline std::int64_t panel_count(std::int64_t columns, std::int64_t panel) { return (columns + panel - 1) / panel; }
inline std::int64_t packed_size(std::int64_t inner, std::int64_t columns, std::int64_t panel) {
    return panel_count(columns, panel) * inner * panel;
}

// Elements of T that an element of W takes in an operand; KernelTable has it for tables that do otherwise.
template <class T>
constexpr std::int64_t operand_parts = std::is_same<T, bfloat16x2>::value ? 2 : 1;
template <class T>
RC_HD std::int64_t operand_rows(std::int64_t inner) {
    return computes_itself<T> ? inner : (inner + 31) / 32 * 32 * operand_parts<T>;
}
// Bytes.
template <class T>
constexpr std::int64_t row_alignment = std::is_same<T, bfloat16x2>::value ? 128 : 64;

// One term A·W of the sum: rows of A, (rows, inner), and W packed, (inner, columns). `across` is Wᵀ packed, where it is
// at hand: where numbers, or pairs of bfloat16, are multiplied as they are stored, the last columns of W are summed
// along it if they fill little of a vector.
template <class T>
struct Source {
    Rows<T> rows;
    const T* panels = nullptr;
    std::int64_t inner = 0;
    const T* across = nullptr;
};

// Of what a step has put through ReLU, a bit for each number: whether it let it pass. For devices whose epilogues keep
// them (KernelTable::pass_words). `there`: those of the outputs that the step made last.
struct Passes {
    std::uint32_t* bits = nullptr;
    bool there = false;
};

// mask ⊙ ((z − center) ⊙ scale + shift): a normal path whose product was stored, because statistics or dropout stand
// between it and the skips. center, scale and shift are all given or all null; mask (multipliers) may be null.
template <class T>
struct Branch {
    Rows<T> z;
    const Compute<T>* center = nullptr;
    const Compute<T>* scale = nullptr;
    const Compute<T>* shift = nullptr;
    Rows<Compute<T>> mask;
};

// out = mask ⊙ g(Σ A_s·W_s + bias + Σ identity + branch). There may be no source at all. `wide` takes the same before
// it is rounded to T; either may be null.
template <class T>
struct ForwardArgs {
    std::int64_t rows = 0, columns = 0;
    const Source<T>* sources = nullptr;
    int n_sources = 0;
    const Compute<T>* bias = nullptr;
    const Rows<T>* identity = nullptr;
    int n_identity = 0;
    Branch<T> branch;
    int activation = 0;       // index into Activations
    Rows<Compute<T>> mask;    // dropout multipliers, or null
    MutableRows<T> argument;  // where to keep the argument of g, or null
    MutableRows<T> out;
    MutableRows<Compute<T>> wide;
    Passes* passes = nullptr;   // of `out`, to be kept where that costs little; null: nobody asks
    double* largest = nullptr;  // as that of LargestArgs, of the results as T holds them; null: nobody asks
    // On the host, the panels of columns that are to be computed; all where nothing is said.
    std::int64_t first_panel = 0, last_panel = std::numeric_limits<std::int64_t>::max();
};

// out = scale · (Σ δ_c·W_cᵀ + Σ identity) ⊙ mask ⊙ g′. Sources hold the consumers' δ and transposed panels.
template <class T>
struct BackwardDataArgs {
    std::int64_t rows = 0, columns = 0;
    const Source<T>* sources = nullptr;
    int n_sources = 0;
    const Rows<T>* identity = nullptr;
    int n_identity = 0;
    Rows<Compute<T>> mask;
    Compute<T> scale =
        1;  // instead of a mask, 1/(1 − p) where `saved` is 0 for what was dropped; no device's kernels read it
    int activation = 0;
    Rows<T> saved;  // the output of g, or its argument; not read where g is the identity
    bool saved_is_argument = false;
    const Passes* passes = nullptr;  // of `saved`, which they may be read instead of if they are there
    MutableRows<T> out;
    // As in ForwardArgs.
    double* largest = nullptr;
    std::int64_t first_panel = 0, last_panel = std::numeric_limits<std::int64_t>::max();
};

// One of several steps on the same rows, in their order. The last two are a batch's norm each way, with the column sums
// before it, as the functions of these names take them (KernelTable).
enum class ChainKind { forward, backward_data, apply_norm, undo_norm };
template <class T>
struct ChainStep {
    ChainKind kind = ChainKind::forward;
    ForwardArgs<T> forward;                // of the first and of apply_norm
    CombineMomentsArgs<T> moments;         // of apply_norm
    BackwardDataArgs<T> data;              // of backward_data
    NormBackwardArgs<T> undo;              // of undo_norm
    CombineNormSumsArgs<T> sums;           // of undo_norm
    bool is_a = false, is_delta = false;   // whether `out` counts for the largest A, or δ
    std::int64_t last_reader = INT64_MAX;  // of `out`: the place in the chain of the last step that reads it
};

// What is not read behind the steps that are done need not be written. `largest_a` and `largest_delta` are those of
// LargestArgs, or null.
template <class T>
struct ChainArgs {
    const ChainStep<T>* steps = nullptr;
    std::int64_t n_steps = 0;
    double* largest_a = nullptr;
    double* largest_delta = nullptr;
};

// out = mask ⊙ (t ⊙ h + (1 − t) ⊙ x) (Srivastava et al. 2015, equation 3). `wide` as in ForwardArgs.
template <class T>
struct GateArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> h, t, x;
    Rows<Compute<T>> mask;
    MutableRows<T> out;
    MutableRows<Compute<T>> wide;
};

// From G = ∂E/∂a (mask already applied): d_h = G ⊙ t ⊙ g′(h), d_t = G ⊙ (h − x) ⊙ t ⊙ (1 − t), d_x = G ⊙ (1 − t).
template <class T>
struct GateBackwardArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> gradient, h, t, x;
    int activation = 0;
    Rows<T> saved;
    bool saved_is_argument = false;
    MutableRows<T> d_h, d_t, d_x;
};

// Dropout multipliers, 0 or 1/(1 − p): element (i, j) is decided by counter (first_row + i) * row_columns +
// first_column + j of `key`.
template <class T>
struct DropoutArgs {
    std::int64_t rows = 0, columns = 0;            // that are drawn, from these on
    std::int64_t first_row = 0, first_column = 0;  // of the batch
    std::int64_t row_columns = 0;                  // of a row of the batch, whose numbers are counted
    const PhiloxKey* key = nullptr;                // seed and step
    std::uint32_t purpose = 0;                     // instead of the key's
    double probability = 0;
    MutableRows<Compute<T>> out;
};

// Per row: loss (already weighted, times `normaliser`) and ∂E/∂logits. Exactly one of labels and targets is given. The
// loss of a label that is no class is NaN.
template <class T>
struct LossArgs {
    std::int64_t rows = 0, columns = 0;
    int loss = 0;  // index into Losses
    Rows<Compute<T>> logits;
    const std::int64_t* labels = nullptr;       // (rows)
    Rows<Compute<T>> targets;                   // (rows, columns)
    const Compute<T>* class_weight = nullptr;   // (columns) for cross_entropy, (2) for binary_cross_entropy
    const Compute<T>* sample_weight = nullptr;  // (rows)
    double label_smoothing = 0;
    double delta = 1;                    // of huber
    const double* normaliser = nullptr;  // 1 / Σ weights, which is another for each batch
    MutableRows<T> gradient;             // null: loss only
    MutableRows<Compute<T>>
        unrounded;                // room for the rows' gradients before they are rounded to T; the host needs none
    double* row_loss = nullptr;   // (rows)
    double* loss_sums = nullptr;  // of every `KernelTable::loss_rows` rows, where that is more than one
    double* largest = nullptr;    // as in ForwardArgs, of the gradients
};

// The largest magnitude among rows of x, if it is larger than `into`, which is at least 0; a NaN counts as more than
// infinity, and comes back as one.
template <class T>
struct LargestArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> x;
    double* into = nullptr;
};

// The loss of a batch, its rows' added in an order that their number decides, and whether its update is safe: no
// gradient is larger than the number of rows times the largest A times the largest δ.
template <class T>
struct ConcludeArgs {
    std::int64_t rows = 0;
    const double* losses = nullptr;  // the rows', or sums of them
    std::int64_t n_losses = 0;
    const double* largest_a = nullptr;
    const double* largest_delta = nullptr;
    const Hyper<Compute<T>>* hyper = nullptr;  // null: there is no update, or none that is to be careful
    Outcome* out = nullptr;
    std::int32_t* shut = nullptr;  // 1 from a batch that is not permitted on, until the host clears it; null where the
                                   // host sees every outcome before it asks for the next batch
};

// Each vector's `to` = `from`, if that is permitted.
template <class T>
struct CommittedVector {
    std::int64_t size = 0;
    const Compute<T>* from = nullptr;
    Compute<T>* to = nullptr;
};
template <class T>
struct CommitArgs {
    CommittedVector<T> vectors[vectors_of_call];
    int count = 0;
    const Outcome* permission = nullptr;
};

// Σ out = Σ g²: shares of the sum, which `size` alone decides.
template <class T>
struct SquaresArgs {
    std::int64_t size = 0;
    const Compute<T>* gradient = nullptr;
    double* out = nullptr;  // (KernelTable::square_parts)
};

// norm = √Σ squares; factor = largest / (norm + 1e-6), at most 1, as torch.nn.utils.clip_grad_norm_ has it; `largest` 0
// does not clip.
template <class T>
struct ClipArgs {
    std::int64_t count = 0;
    const double* squares = nullptr;
    double largest = 0;
    double* norm = nullptr;
    double* factor = nullptr;
};
template <class T>
struct ScaleArgs {
    std::int64_t size = 0;
    const double* factor = nullptr;  // of 1: nothing is written
    Compute<T>* gradient = nullptr;
};

// Sets `found` where an element has become NaN or infinite that was not.
template <class T>
struct OverflowedArgs {
    std::int64_t size = 0;
    const Compute<T>* before = nullptr;
    const Compute<T>* now = nullptr;
    std::int32_t* found = nullptr;
};

template <class T>
struct KernelTable {
    int panel;                   // columns in a packed panel
    int row_block;               // rows that take no longer than one: tiles of rows are cheapest as multiples of it
    int product_speed;           // products a cycle, about, compared with those of floats in registers
    int max_terms;               // of a list of sources, or of identities; 0: any number
    std::int64_t most_laid_out;  // numbers of A for which `backward_weights` takes stretches together (laid_out_rows)
    // Elements of BackwardWeightsArgs::room for up to so many rows, and so many of W; 0 where it lays out none of A.
    std::int64_t (*stretch_room)(std::int64_t rows, std::int64_t inner);
    void (*forward)(const ForwardArgs<T>&);
    void (*backward_data)(const BackwardDataArgs<T>&);
    void (*backward_weights)(const BackwardWeightsArgs<T>&);
    void (*update)(const UpdateArgs<T>&);
    void (*update_vectors)(const UpdateVectorsArgs<T>&);
    void (*moments)(const MomentsArgs<T>&);
    void (*norm_sums)(const NormSumsArgs<T>&);
    void (*norm_backward)(const NormBackwardArgs<T>&);
    void (*gate)(const GateArgs<T>&);
    void (*gate_backward)(const GateBackwardArgs<T>&);
    void (*dropout)(const DropoutArgs<T>&);
    void (*loss)(const LossArgs<T>&);
    void (*combine_moments)(const CombineMomentsArgs<T>&);
    void (*combine_norm_sums)(const CombineNormSumsArgs<T>&);
    void (*running_coefficients)(const RunningCoefficientsArgs<T>&);
    void (*fold)(const FoldArgs<T>&);
    void (*largest)(const LargestArgs<T>&);
    void (*conclude)(const ConcludeArgs<T>&);
    void (*commit)(const CommitArgs<T>&);
    void (*squares)(const SquaresArgs<T>&);
    void (*clip)(const ClipArgs<T>&);
    void (*scale)(const ScaleArgs<T>&);
    void (*overflowed)(const OverflowedArgs<T>&);
    // Between row-major matrices and packed panels: a parameter, and a weight's operands, all from row-major W (inner,
    // columns).
    void (*pack)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels);
    void (*unpack)(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w);
    // To Wᵀ (columns, inner); null where a device gathers instead (runtime/gathered.h).
    void (*unpack_transposed)(std::int64_t inner, std::int64_t columns, const Compute<T>* panels,
                              MutableRows<Compute<T>> w);
    void (*pack_operand)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
    void (*pack_transposed)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
    // Between storage and what is computed with; the identity where they are the same.
    // `largest`: as in ForwardArgs, of `out`.
    void (*narrow)(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out, double* largest);
    void (*widen)(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out);
    // The first steps of a chain in one call, how many it finds out: none, and nothing is done, where they are better
    // called for one by one. Null where that is always so.
    std::int64_t (*chain)(const ChainArgs<T>&) = nullptr;
    // How many it may be at most, on the device as it is, and whether norms are among them, whose rows are all that a
    // batch has; null likewise.
    std::int64_t (*longest_chain)() = nullptr;
    bool (*chains_norms)() = nullptr;
    // Words of a step's Passes, on the device as it is; 0: it keeps none. Null likewise.
    std::int64_t (*pass_words)(std::int64_t rows, std::int64_t columns) = nullptr;
    // Several calls of `backward_weights` in one, which may divide the batch otherwise; null where that gains nothing.
    void (*backward_all_weights)(const BackwardWeightsArgs<T>* calls, std::int64_t count) = nullptr;
    // Whether those that have a `largest` keep it where they are asked to; else they leave it alone.
    bool keeps_largest = false;
    // Batch normalisation of a whole batch in one call each way, where it has no more rows than this, which is never so
    // where it is 0: `moments` of branch.z, `combine_moments` and `forward`; `norm_sums`, `combine_norm_sums` and
    // `norm_backward`. Of the combining calls' arguments the chunks are not read, and the columns are all.
    std::int64_t joined_rows = 0;
    void (*apply_norm)(const CombineMomentsArgs<T>&, const ForwardArgs<T>&) = nullptr;
    void (*undo_norm)(const CombineNormSumsArgs<T>&, const NormBackwardArgs<T>&) = nullptr;
    int square_parts = 1;  // numbers that `squares` leaves of an array
    int loss_rows = 1;     // rows whose losses `loss` adds up; 1: it does not
    std::int64_t operand_parts = resnetcore::operand_parts<T>;
    // Three of the above past the caches, for more than they hold: what is overwritten is not read before. Null where
    // that makes no difference.
    void (*unpack_transposed_past_caches)(std::int64_t inner, std::int64_t columns, const Compute<T>* panels,
                                          MutableRows<Compute<T>> w) = nullptr;
    void (*pack_operand_past_caches)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) = nullptr;
    void (*pack_transposed_past_caches)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w,
                                        T* panels) = nullptr;
};

// Elements of an operand for W (inner, columns).
template <class T>
std::int64_t operand_size(const KernelTable<T>& kernels, std::int64_t inner, std::int64_t columns) {
    const std::int64_t rows = operand_rows<T>(inner) / operand_parts<T> * kernels.operand_parts;
    return packed_size(rows, columns, kernels.panel);
}

}  // namespace resnetcore

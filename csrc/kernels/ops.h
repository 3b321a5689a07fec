// The kernels' whole interface: argument structs and the table of functions that one instruction set offers.
//
// Invariant: arguments are checked before they get here. Kernels never allocate, throw or lock, and a kernel call
// touches only the rows and panels it is given, so that any partition of the work gives the same bits.
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
// of a weight in both places: [rows][high, low][panel][2]. Rows of zeros make them a multiple of 32, the depth of a
// matrix unit's tile, which is so read whole; `operand_size` counts them, `pack_*` write them, and nothing else does.
#pragma once

#include <cstdint>

#include "math/bfloat16.h"
#include "math/optimizer.h"
#include "math/random.h"

namespace resnetcore {

inline std::int64_t panel_count(std::int64_t columns, std::int64_t panel) { return (columns + panel - 1) / panel; }
inline std::int64_t packed_size(std::int64_t inner, std::int64_t columns, std::int64_t panel) {
    return panel_count(columns, panel) * inner * panel;
}

// Elements of T that an element of W takes in an operand.
template <class T>
constexpr std::int64_t operand_parts = std::is_same<T, bfloat16x2>::value ? 2 : 1;
template <class T>
RC_HD std::int64_t operand_rows(std::int64_t inner) {
    return computes_itself<T> ? inner : (inner + 31) / 32 * 32 * operand_parts<T>;
}
template <class T>
std::int64_t operand_size(std::int64_t inner, std::int64_t columns, std::int64_t panel) {
    return packed_size(operand_rows<T>(inner), columns, panel);
}

// A tile of rows: element (i, j) is data[i * stride + j]; the width is known from the operation.
template <class T>
struct Rows {
    const T* data = nullptr;
    std::int64_t stride = 0;
};

template <class T>
struct MutableRows {
    T* data = nullptr;
    std::int64_t stride = 0;
    operator Rows<T>() const { return {data, stride}; }
};

// One term A·W of the sum: rows of A, (rows, inner), and W packed, (inner, columns). `across` is Wᵀ packed, where it is
// at hand: in float and double the last columns of W are summed along it where they fill little of a vector.
template <class T>
struct Source {
    Rows<T> rows;
    const T* panels = nullptr;
    std::int64_t inner = 0;
    const T* across = nullptr;
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
};

// out = (Σ δ_c·W_cᵀ + Σ identity) ⊙ mask ⊙ g′. Sources hold the consumers' δ and transposed panels.
template <class T>
struct BackwardDataArgs {
    std::int64_t rows = 0, columns = 0;
    const Source<T>* sources = nullptr;
    int n_sources = 0;
    const Rows<T>* identity = nullptr;
    int n_identity = 0;
    Rows<Compute<T>> mask;
    int activation = 0;
    Rows<T> saved;  // the output of g, or its argument; not read where g is the identity
    bool saved_is_argument = false;
    MutableRows<T> out;
};

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

// Weight gradients are sums over this many rows at a time, added in the order of the rows: so a batch gives the same
// bits whether one call sees all of it or each call one stretch.
constexpr std::int64_t gradient_stretch = 128;

// In bfloat16 a stretch's rows of A and of δ are interleaved first, two by two, and in bfloat16x2 the halves of δ are
// laid out as a weight's: room for that. The distance of two such rows of A is no power of two, which would put them
// all into a few cache sets.
RC_HD std::int64_t pair_stride(std::int64_t inner) { return (inner + 15) / 16 * 16 + 16; }
template <class T>
std::int64_t pair_elements(std::int64_t inner, std::int64_t panel) {
    return computes_itself<T> ? 0 : gradient_stretch * (pair_stride(inner) + operand_parts<T> * panel);
}

// dW = Aᵀ·δ over all rows, for the panels [first_panel, last_panel) of W, and db = Σ_rows δ for their columns.
// With `gradient` set, the packed gradient is written there (added, if `accumulate`); `weight` is untouched.
// Otherwise the optimizer is applied to `weight` and its operands are refreshed. The same holds for the bias.
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
    Hyper<Compute<T>> weight_hyper, bias_hyper;
    // Private to the calling thread. `sums`: inner * panel elements for each panel; not used where `gradient` is set.
    // `pairs`: pair_elements.
    Compute<T>* sums = nullptr;
    T* pairs = nullptr;
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
    Hyper<Compute<T>> hyper;
};

// The optimizer on a plain vector (bias, norm weight and bias).
template <class T>
struct UpdateVectorArgs {
    std::int64_t size = 0;
    const Compute<T>* gradient = nullptr;
    Slot<Compute<T>> slot;
    int optimizer = 0;
    Hyper<Compute<T>> hyper;
};

// Column moments of one chunk of rows: mean[j], and m2[j] = Σ (x − mean[j])². Chunks are combined by the executor.
template <class T>
struct MomentsArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> in;
    Compute<T>* mean = nullptr;
    Compute<T>* m2 = nullptr;
};

// Column sums of one chunk for the backward of batch normalisation: Σ d and Σ d·x̂, with d = delta ⊙ mask and
// x̂ = (z − mean) ⊙ inverse_deviation.
template <class T>
struct NormSumsArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> delta;
    Rows<Compute<T>> mask;
    Rows<T> z;
    const Compute<T>* mean = nullptr;
    const Compute<T>* inverse_deviation = nullptr;
    Compute<T>* sum = nullptr;
    Compute<T>* sum_xhat = nullptr;
};

// out = scale ⊙ (d − mean_d − x̂ ⊙ mean_dx) with d = delta ⊙ mask (Ioffe & Szegedy 2015, section 3, rearranged).
// With z null there is no normalisation and out = d.
template <class T>
struct NormBackwardArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> delta;
    Rows<Compute<T>> mask;
    Rows<T> z;
    const Compute<T>* mean = nullptr;
    const Compute<T>* inverse_deviation = nullptr;
    const Compute<T>* scale = nullptr;
    const Compute<T>* mean_d = nullptr;
    const Compute<T>* mean_dx = nullptr;
    MutableRows<T> out;
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

// Dropout multipliers, 0 or 1/(1 − p): element (i, j) is decided by counter (first_row + i) * columns + j of `key`.
template <class T>
struct DropoutArgs {
    std::int64_t rows = 0, columns = 0, first_row = 0;
    PhiloxKey key;
    double probability = 0;
    MutableRows<Compute<T>> out;
};

// Per row: loss (already weighted, times `normaliser`) and ∂E/∂logits. Exactly one of labels and targets is given.
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
    double delta = 1;            // of huber
    double normaliser = 1;       // 1 / Σ weights
    MutableRows<T> gradient;     // null: loss only
    Compute<T>* row = nullptr;   // room for a row's gradient before it is rounded to T
    double* row_loss = nullptr;  // (rows)
};

template <class T>
struct KernelTable {
    int panel;      // columns in a packed panel
    int row_block;  // rows of the micro-kernel: row tiles are cheapest as multiples of it
    void (*forward)(const ForwardArgs<T>&);
    void (*backward_data)(const BackwardDataArgs<T>&);
    void (*backward_weights)(const BackwardWeightsArgs<T>&);
    void (*update)(const UpdateArgs<T>&);
    void (*update_vector)(const UpdateVectorArgs<T>&);
    void (*moments)(const MomentsArgs<T>&);
    void (*norm_sums)(const NormSumsArgs<T>&);
    void (*norm_backward)(const NormBackwardArgs<T>&);
    void (*gate)(const GateArgs<T>&);
    void (*gate_backward)(const GateBackwardArgs<T>&);
    void (*dropout)(const DropoutArgs<T>&);
    void (*loss)(const LossArgs<T>&);
    // The largest magnitude among rows of x; a NaN counts as more than infinity, and comes back as one.
    double (*largest)(std::int64_t rows, std::int64_t columns, Rows<T> x);
    // Between the row-major world and packed panels: a parameter, and a weight's operands, all from row-major W (inner,
    // columns).
    void (*pack)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels);
    void (*unpack)(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w);
    void (*pack_operand)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
    void (*pack_transposed)(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels);
    // Between storage and what is computed with; the identity where they are the same.
    void (*narrow)(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out);
    void (*widen)(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out);
};

}  // namespace resnetcore

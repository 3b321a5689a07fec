// The kernels' whole interface: argument structs and the table of functions that one instruction set offers.
//
// Invariant: arguments are checked before they get here. Kernels never allocate, throw or lock, and a kernel call
// touches only the rows and panels it is given, so that any partition of the work gives the same bits.
//
// Packed weights. A matrix W (inner, columns) is cut into panels of `KernelTable::panel` columns; panel p is
// contiguous, [inner][panel], and its last panel is padded with zeros. The transposed copy is the same layout of Wᵀ
// (columns, inner). `packed_size(inner, columns, panel)` is the number of elements of either.
#pragma once

#include <cstdint>

#include "math/optimizer.h"
#include "math/random.h"

namespace resnetcore {

inline std::int64_t panel_count(std::int64_t columns, std::int64_t panel) { return (columns + panel - 1) / panel; }
inline std::int64_t packed_size(std::int64_t inner, std::int64_t columns, std::int64_t panel) {
    return panel_count(columns, panel) * inner * panel;
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

// One term A·W of the sum: rows of A, (rows, inner), and W packed, (inner, columns).
template <class T>
struct Source {
    Rows<T> rows;
    const T* panels = nullptr;
    std::int64_t inner = 0;
};

// mask ⊙ ((z − center) ⊙ scale + shift): a normal path whose product was stored, because statistics or dropout stand
// between it and the skips. center, scale and shift are all given or all null; mask (multipliers) may be null.
template <class T>
struct Branch {
    Rows<T> z;
    const T* center = nullptr;
    const T* scale = nullptr;
    const T* shift = nullptr;
    Rows<T> mask;
};

// out = mask ⊙ g(Σ A_s·W_s + bias + Σ identity + branch). There may be no source at all.
template <class T>
struct ForwardArgs {
    std::int64_t rows = 0, columns = 0;
    const Source<T>* sources = nullptr;
    int n_sources = 0;
    const T* bias = nullptr;
    const Rows<T>* identity = nullptr;
    int n_identity = 0;
    Branch<T> branch;
    int activation = 0;       // index into Activations
    Rows<T> mask;             // dropout multipliers, or null
    MutableRows<T> argument;  // where to keep the argument of g, or null
    MutableRows<T> out;
};

// out = (Σ δ_c·W_cᵀ + Σ identity) ⊙ mask ⊙ g′. Sources hold the consumers' δ and transposed panels.
template <class T>
struct BackwardDataArgs {
    std::int64_t rows = 0, columns = 0;
    const Source<T>* sources = nullptr;
    int n_sources = 0;
    const Rows<T>* identity = nullptr;
    int n_identity = 0;
    Rows<T> mask;
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

// Weight gradients are sums over this many rows at a time, added in the order of the rows: so a batch gives the same
// bits whether one call sees all of it or each call one stretch.
constexpr std::int64_t gradient_stretch = 128;

// dW = Aᵀ·δ over all rows, for the panels [first_panel, last_panel) of W, and db = Σ_rows δ for their columns.
// With `gradient` set, the packed gradient is written there (added, if `accumulate`); `weight` is untouched.
// Otherwise the optimizer is applied to `weight` and its transposed copy is refreshed. The same holds for the bias.
template <class T>
struct BackwardWeightsArgs {
    std::int64_t rows = 0, inner = 0, columns = 0;
    std::int64_t first_panel = 0, last_panel = 0;
    Rows<T> a, delta;
    T* gradient = nullptr;       // packed, whole matrix
    T* bias_gradient = nullptr;  // (columns)
    bool accumulate = false;
    bool has_bias = false;
    Slot<T> weight;           // packed, whole matrix
    T* transposed = nullptr;  // packed Wᵀ, whole matrix
    Slot<T> bias;
    int optimizer = 0;  // index into Optimizers
    Hyper<T> weight_hyper, bias_hyper;
    T* scratch = nullptr;  // inner * panel elements, private to the calling thread; not used where `gradient` is set
};

// The optimizer on a materialised packed gradient: panels [first_panel, last_panel), and the transposed copy.
template <class T>
struct UpdateArgs {
    std::int64_t inner = 0, columns = 0;
    std::int64_t first_panel = 0, last_panel = 0;
    const T* gradient = nullptr;
    Slot<T> weight;
    T* transposed = nullptr;
    int optimizer = 0;
    Hyper<T> hyper;
};

// The optimizer on a plain vector (bias, norm weight and bias).
template <class T>
struct UpdateVectorArgs {
    std::int64_t size = 0;
    const T* gradient = nullptr;
    Slot<T> slot;
    int optimizer = 0;
    Hyper<T> hyper;
};

// Column moments of one chunk of rows: mean[j], and m2[j] = Σ (x − mean[j])². Chunks are combined by the executor.
template <class T>
struct MomentsArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> in;
    T* mean = nullptr;
    T* m2 = nullptr;
};

// Column sums of one chunk for the backward of batch normalisation: Σ d and Σ d·x̂, with d = delta ⊙ mask and
// x̂ = (z − mean) ⊙ inverse_deviation.
template <class T>
struct NormSumsArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> delta, mask, z;
    const T* mean = nullptr;
    const T* inverse_deviation = nullptr;
    T* sum = nullptr;
    T* sum_xhat = nullptr;
};

// out = scale ⊙ (d − mean_d − x̂ ⊙ mean_dx) with d = delta ⊙ mask (Ioffe & Szegedy 2015, section 3, rearranged).
// With z null there is no normalisation and out = d.
template <class T>
struct NormBackwardArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> delta, mask, z;
    const T* mean = nullptr;
    const T* inverse_deviation = nullptr;
    const T* scale = nullptr;
    const T* mean_d = nullptr;
    const T* mean_dx = nullptr;
    MutableRows<T> out;
};

// out = mask ⊙ (t ⊙ h + (1 − t) ⊙ x) (Srivastava et al. 2015, equation 3).
template <class T>
struct GateArgs {
    std::int64_t rows = 0, columns = 0;
    Rows<T> h, t, x, mask;
    MutableRows<T> out;
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
    MutableRows<T> out;
};

// Per row: loss (already weighted, times `normaliser`) and ∂E/∂logits. Exactly one of labels and targets is given.
template <class T>
struct LossArgs {
    std::int64_t rows = 0, columns = 0;
    int loss = 0;  // index into Losses
    Rows<T> logits;
    const std::int64_t* labels = nullptr;  // (rows)
    Rows<T> targets;                       // (rows, columns)
    const T* class_weight = nullptr;       // (columns) for cross_entropy, (2) for binary_cross_entropy
    const T* sample_weight = nullptr;      // (rows)
    double label_smoothing = 0;
    double delta = 1;            // of huber
    double normaliser = 1;       // 1 / Σ weights
    MutableRows<T> gradient;     // null: loss only
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
    // Between the row-major world and packed panels; `pack_transposed` packs Wᵀ from row-major W (inner, columns).
    void (*pack)(std::int64_t inner, std::int64_t columns, Rows<T> w, T* panels);
    void (*pack_transposed)(std::int64_t inner, std::int64_t columns, Rows<T> w, T* panels);
    void (*unpack)(std::int64_t inner, std::int64_t columns, const T* panels, MutableRows<T> w);
};

}  // namespace resnetcore

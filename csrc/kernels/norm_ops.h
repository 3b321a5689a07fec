// The arguments of batch normalisation's operations, a part of ops.h, which says what T and Compute<T> are and whose
// memory it is.
//
// Invariant: a batch's statistics are sums over its rows in chunks, cut by the number of rows alone. A chunk's sums are
// made of its own rows, by whoever has them, and are put together only when all of them are there: so statistics, and
// what is made of them, do not depend on how the rows were shared out.
#pragma once

#include <cstdint>

#include "kernels/rows.h"
#include "math/bfloat16.h"

namespace resnetcore {

// Partial column sums: two arrays of `width` for each chunk of rows.
template <class T>
struct PartialSums {
    Compute<T>* data = nullptr;
    std::int64_t width = 0, rows = 0, chunk = 0;
    RC_HD Compute<T>* first(std::int64_t index) const { return data + 2 * index * width; }
    RC_HD Compute<T>* second(std::int64_t index) const { return first(index) + width; }
    RC_HD std::int64_t chunks() const { return (rows + chunk - 1) / chunk; }
    RC_HD std::int64_t rows_of(std::int64_t index) const {
        const std::int64_t left = rows - index * chunk;
        return left < chunk ? left : chunk;
    }
};

// Column moments of some chunks of rows: first: mean[j], second: m2[j] = Σ (x − mean[j])². `sums` are those of the
// batch; `first_row`, of the rows given here, is the first of a chunk.
template <class T>
struct MomentsArgs {
    std::int64_t rows = 0, columns = 0, first_row = 0;
    Rows<T> in;
    PartialSums<T> sums;
};

// Column sums of some chunks for the backward of batch normalisation: first: Σ d, second: Σ d·x̂, with d = delta ⊙ mask
// and x̂ = (z − mean) ⊙ inverse_deviation.
template <class T>
struct NormSumsArgs {
    std::int64_t rows = 0, columns = 0, first_row = 0;
    Rows<T> delta;
    Rows<Compute<T>> mask;
    Rows<T> z;
    const Compute<T>* mean = nullptr;
    const Compute<T>* inverse_deviation = nullptr;
    PartialSums<T> sums;
};

// What products and epilogues read of a norm: x̂ = (z − mean)·inverse_deviation, y = (z − mean)·scale + shift.
template <class T>
struct NormCoefficients {
    Compute<T>* mean = nullptr;
    Compute<T>* inverse_deviation = nullptr;
    Compute<T>* scale = nullptr;
    Compute<T>* shift = nullptr;
};

// Columns [begin, end): the chunks' moments into those of the batch (Chan, Golub & LeVeque 1979), the coefficients made
// of them, and the running statistics carried on, which may be done in place.
template <class T>
struct CombineMomentsArgs {
    std::int64_t begin = 0, end = 0;
    PartialSums<T> sums;
    const Compute<T>* weight = nullptr;
    const Compute<T>* bias = nullptr;
    NormCoefficients<T> out;
    const Compute<T>* running_mean = nullptr;
    const Compute<T>* running_var = nullptr;
    Compute<T>* next_mean = nullptr;
    Compute<T>* next_var = nullptr;
};

// Columns [begin, end): the chunks' sums into mean_d and mean_dx, both 0 where the statistics do not depend on the
// batch (`frozen`), and into d_weight and d_bias (added, if `accumulate`).
template <class T>
struct CombineNormSumsArgs {
    std::int64_t begin = 0, end = 0;
    PartialSums<T> sums;
    bool frozen = false, accumulate = false;
    Compute<T>* mean_d = nullptr;
    Compute<T>* mean_dx = nullptr;
    Compute<T>* d_weight = nullptr;
    Compute<T>* d_bias = nullptr;
};

// The coefficients of running statistics.
template <class T>
struct RunningCoefficientsArgs {
    std::int64_t columns = 0;
    const Compute<T>* running_mean = nullptr;
    const Compute<T>* running_var = nullptr;
    const Compute<T>* weight = nullptr;
    const Compute<T>* bias = nullptr;
    NormCoefficients<T> out;
};

// A weight with the norm after it folded in, for inference: out = W ⊙ scale as an operand, bias = shift − mean·scale.
// `panels` is the parameter, packed.
template <class T>
struct FoldArgs {
    std::int64_t inner = 0, columns = 0;
    const Compute<T>* panels = nullptr;
    NormCoefficients<T> norm;
    T* out = nullptr;
    Compute<T>* bias = nullptr;
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
    double* largest = nullptr;  // as in ForwardArgs
};

}  // namespace resnetcore

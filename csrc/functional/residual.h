// The block as pure functions on row-major matrices, for embedding: nothing is kept between calls.
//
// Arguments are checked by the caller. Weights are packed once per call. T is what every matrix is stored as; sums,
// and what becomes of them until a result is stored, are of Compute<T>. Work of a device that is not the host may still
// be under way at return.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "runtime/device.h"

namespace resnetcore {

// (rows, columns), row-major; rows `stride` apart. A weight may be `is_transposed`: then (columns, rows) is what lies
// so.
template <class T>
struct Matrix {
    const T* data = nullptr;
    std::int64_t rows = 0, columns = 0, stride = 0;
    bool is_transposed = false;

    std::int64_t stored_rows() const { return is_transposed ? columns : rows; }
    std::int64_t stored_columns() const { return is_transposed ? rows : columns; }
};

template <class T>
struct ResidualArguments {
    std::vector<Matrix<T>> sources, weights;
    const T* bias = nullptr;  // (columns), or null
    std::vector<Matrix<T>> identity;
    std::int64_t rows = 0, columns = 0;
    int activation = 0;
    Device* device = &host_device();  // whose memory this and every result is in, and whose kernels run
};

// Throws DeviceError, beginning with `operation`, for longer lists or wider matrices than the device's kernels take.
template <class T>
void check_fits(const ResidualArguments<T>& arguments, const char* operation);

// out = g(Σ A_s·W_s + bias + Σ identity). `wide` takes it before it is rounded to T, where that is a difference; then
// `out` may be null.
template <class T>
void residual_forward(const ResidualArguments<T>& arguments, MutableRows<T> out, MutableRows<Compute<T>> wide = {});

// `sources` or `weights` may be empty: then they are not computed.
template <class T>
struct ResidualGradients {
    std::vector<MutableRows<T>> sources;           // (rows, K_s) each; none where nobody asks for them
    std::vector<MutableRows<Compute<T>>> weights;  // (K_s, columns) each
    Compute<T>* bias = nullptr;                    // null where it is not wanted
    MutableRows<T> delta;                          // (rows, columns): the gradient of every identity term
};

// From ∂E/∂a and a: ∂E/∂A_s = δ·W_sᵀ, ∂E/∂W_s = A_sᵀ·δ, ∂E/∂b = Σ_rows δ with δ = ∂E/∂a ⊙ g′, rounded to T once.
template <class T>
void residual_backward(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                       const ResidualGradients<T>& out);

// A view of stride 0 may be of any shape, its copy may not: throws bad_alloc for one that is far from having a place,
// so that sizes of copies, packed ones too, are far from overflow.
void check_copyable(std::int64_t rows, std::int64_t columns);

// A caller's matrix in place: element (i, j) is data[i * row_stride + j * column_stride].
template <class T>
struct Strided {
    T* data = nullptr;
    std::int64_t rows = 0, columns = 0, row_stride = 0, column_stride = 1;
};

// w ← w − η·g, rounded to T once; g is (rows, columns), dense. Both are the host's.
template <class T>
void descend(const Strided<T>& w, const Compute<T>* gradient, double lr);

extern template void check_fits(const ResidualArguments<float>&, const char*);
extern template void check_fits(const ResidualArguments<double>&, const char*);
extern template void check_fits(const ResidualArguments<bfloat16>&, const char*);
extern template void residual_forward(const ResidualArguments<float>&, MutableRows<float>, MutableRows<float>);
extern template void residual_forward(const ResidualArguments<double>&, MutableRows<double>, MutableRows<double>);
extern template void residual_forward(const ResidualArguments<bfloat16>&, MutableRows<bfloat16>, MutableRows<float>);
extern template void residual_backward(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                       const ResidualGradients<float>&);
extern template void residual_backward(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                       const ResidualGradients<double>&);
extern template void residual_backward(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                       const ResidualGradients<bfloat16>&);
extern template void descend(const Strided<float>&, const float*, double);
extern template void descend(const Strided<double>&, const double*, double);
extern template void descend(const Strided<bfloat16>&, const float*, double);

}  // namespace resnetcore

// rc_residual_*: every matrix is checked, the block's dtype and device chosen, and csrc/functional called.
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "capi/arguments.h"
#include "capi/devices.h"
#include "capi/guarded.h"
#include "capi/names.h"
#include "functional/stored_gradients.h"

namespace resnetcore::capi {
namespace {

// The arguments that all three share. `weights` and `bias` are written where `trained` says so.
struct Block {
    const char* operation;
    int n;
    const rc_matrix *sources, *weights, *bias;
    int n_identity;
    const rc_matrix* identity;
    rc_activation activation;
    Use trained = Use::read;

    std::int64_t rows() const { return sources[0].rows; }
    std::int64_t columns() const { return weights[0].columns; }
    rc_dtype dtype() const { return sources[0].dtype; }

    // All of them; the work is done where the first source is.
    Arguments checked() const;
};

std::string indexed(const char* name, int i) { return std::string(name) + "[" + std::to_string(i) + "]"; }

void check_count(bool good, const char* operation, const char* name, const char* range, int count) {
    if (!good)
        throw ShapeError(std::string(operation) + ": " + name + " must be " + range + ", got " + std::to_string(count));
}

Arguments Block::checked() const {
    check_count(n >= 1, operation, "n", "at least 1", n);
    check_count(n_identity >= 0, operation, "n_identity", "at least 0", n_identity);
    require(sources, operation, "sources");
    require(weights, operation, "weights");
    if (n_identity > 0) require(identity, operation, "identity");
    activation_index(activation, operation);
    const std::string what = operation;
    if (dtype() < RC_FLOAT32 || dtype() > RC_BFLOAT16)
        throw DTypeError(what + ": sources[0] must be float32, float64 or bfloat16");
    if (rows() < 0 || columns() < 1)
        throw ShapeError(what + ": sources[0] must have 0 rows or more, and weights[0] 1 column or more, got " +
                         shape_text({rows(), sources[0].columns}) + " and " + shape_text({weights[0].rows, columns()}));
    Arguments arguments(operation, device_of(sources[0].device, operation, "sources[0]"));
    for (int s = 0; s < n; ++s) {
        const std::int64_t inner = sources[s].columns;
        if (inner < 1)
            throw ShapeError(what + ": " + indexed("sources", s) + " must have 1 column or more, got " +
                             shape_text({sources[s].rows, inner}));
        arguments.check(&sources[s], indexed("sources", s), rows(), inner, dtype(), Use::read);
        arguments.check(&weights[s], indexed("weights", s), inner, columns(), dtype(), trained);
    }
    if (bias) arguments.check(bias, "bias", 1, columns(), dtype(), trained);
    for (int i = 0; i < n_identity; ++i)
        arguments.check(&identity[i], indexed("identity", i), rows(), columns(), dtype(), Use::read);
    return arguments;
}

template <class T>
Matrix<T> matrix_of(const rc_matrix& m) {
    const Rows<T> rows = rows_of<T>(m);
    return {rows.data, m.rows, m.columns, rows.stride};
}

template <class T>
ResidualArguments<T> arguments_of(const Block& block, Device& home) {
    ResidualArguments<T> arguments;
    arguments.device = &home;
    for (int s = 0; s < block.n; ++s) {
        arguments.sources.push_back(matrix_of<T>(block.sources[s]));
        arguments.weights.push_back(matrix_of<T>(block.weights[s]));
    }
    for (int i = 0; i < block.n_identity; ++i) arguments.identity.push_back(matrix_of<T>(block.identity[i]));
    if (block.bias) arguments.bias = static_cast<const T*>(block.bias->data);
    arguments.rows = block.rows();
    arguments.columns = block.columns();
    arguments.activation = activation_index(block.activation, block.operation);
    check_fits(arguments, block.operation);
    return arguments;
}

// What a bfloat16's sums are of; no other dtype has another one.
rc_dtype unrounded(rc_dtype dtype) { return dtype == RC_BFLOAT16 ? RC_FLOAT32 : -1; }

// visit(T()) with the block's T.
template <class Visit>
void with_dtype(rc_dtype dtype, Visit visit) {
    if (dtype == RC_FLOAT32) visit(float());
    if (dtype == RC_FLOAT64) visit(double());
    if (dtype == RC_BFLOAT16) visit(bfloat16());
}

template <class T>
void forward(const ResidualArguments<T>& arguments, const rc_matrix& out) {
    if (out.dtype == dtype_of<T>)
        residual_forward(arguments, rows_of<T>(out));
    else
        residual_forward(arguments, {}, rows_of<Compute<T>>(out));
}

// The gradients that are wanted.
struct Wanted {
    const rc_matrix *d_sources = nullptr, *d_weights = nullptr, *d_bias = nullptr, *d_identity = nullptr;
};

void check_wanted(const Block& block, const Wanted& wanted, Arguments& arguments) {
    const rc_dtype dtype = block.dtype();
    for (int s = 0; s < block.n; ++s) {
        if (wanted.d_sources)
            arguments.check(&wanted.d_sources[s], indexed("d_sources", s), block.rows(), block.sources[s].columns,
                            dtype, Use::written);
        if (wanted.d_weights)
            arguments.check(&wanted.d_weights[s], indexed("d_weights", s), block.sources[s].columns, block.columns(),
                            dtype, Use::written, unrounded(dtype));
    }
    if (wanted.d_bias) {
        if (!block.bias)
            throw ValueError(std::string(block.operation) + ": d_bias must be NULL where there is no bias");
        arguments.check(wanted.d_bias, "d_bias", 1, block.columns(), dtype, Use::written, unrounded(dtype));
    }
    for (int i = 0; wanted.d_identity && i < block.n_identity; ++i)
        arguments.check(&wanted.d_identity[i], indexed("d_identity", i), block.rows(), block.columns(), dtype,
                        Use::written);
}

template <class T>
StoredSum<T> sum_of(const rc_matrix& m) {
    StoredSum<T> sum;
    if (m.dtype == dtype_of<T>)
        sum.rounded = rows_of<T>(m);
    else
        sum.wide = rows_of<Compute<T>>(m);
    return sum;
}

template <class T>
StoredGradients<T> gradients_of(const Block& block, const Wanted& wanted) {
    StoredGradients<T> out;
    for (int s = 0; s < block.n; ++s) {
        if (wanted.d_sources) out.sources.push_back(rows_of<T>(wanted.d_sources[s]));
        if (wanted.d_weights) out.weights.push_back(sum_of<T>(wanted.d_weights[s]));
    }
    if (wanted.d_bias) out.bias = sum_of<T>(*wanted.d_bias);
    for (int i = 0; wanted.d_identity && i < block.n_identity; ++i)
        out.deltas.push_back(rows_of<T>(wanted.d_identity[i]));
    return out;
}

template <class T>
Strided<T> in_place(const rc_matrix& m) {
    const MutableRows<T> rows = rows_of<T>(m);
    return {rows.data, m.rows, m.columns, rows.stride, 1};
}

template <class T>
TrainedMatrices<T> trained_of(const Block& block) {
    TrainedMatrices<T> trained;
    for (int s = 0; s < block.n; ++s) trained.weights.push_back(in_place<T>(block.weights[s]));
    if (block.bias) trained.bias = in_place<T>(*block.bias);
    return trained;
}

template <class T>
void check_rate(double lr, const char* operation) {
    const auto rate = static_cast<Compute<T>>(lr);
    if (!(rate > 0 && std::isfinite(rate)))
        throw ValueError(std::string(operation) + ": lr must be positive and finite in its dtype, got " +
                         number_text(lr));
}

Arguments check_all(const Block& block, const rc_matrix* grad, const rc_matrix* a, const Wanted& wanted) {
    Arguments arguments = block.checked();
    arguments.check(grad, "grad", block.rows(), block.columns(), block.dtype(), Use::read);
    arguments.check(a, "a", block.rows(), block.columns(), block.dtype(), Use::read);
    check_wanted(block, wanted, arguments);
    arguments.check_overlaps();
    return arguments;
}

}  // namespace
}  // namespace resnetcore::capi

using namespace resnetcore;
using namespace resnetcore::capi;

rc_status rc_residual_forward_on(int n, const rc_matrix* sources, const rc_matrix* weights, const rc_matrix* bias,
                                 int n_identity, const rc_matrix* identity, rc_activation activation, rc_matrix* out,
                                 rc_stream stream) {
    return guarded([&] {
        const Block block{"rc_residual_forward", n, sources, weights, bias, n_identity, identity, activation};
        Arguments checked = block.checked();
        checked.check(out, "out", block.rows(), block.columns(), block.dtype(), Use::written, unrounded(block.dtype()));
        checked.check_overlaps();
        CallOrder order(checked, stream);
        with_dtype(block.dtype(),
                   [&](auto element) { forward(arguments_of<decltype(element)>(block, checked.home()), *out); });
        order.finish();
    });
}

rc_status rc_residual_backward_on(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                  const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                                  const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                                  rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity, rc_stream stream) {
    return guarded([&] {
        const Block block{"rc_residual_backward", n, sources, weights, bias, n_identity, identity, activation};
        const Wanted wanted{d_sources, d_weights, d_bias, d_identity};
        const Arguments checked = check_all(block, grad, a, wanted);
        CallOrder order(checked, stream);
        with_dtype(block.dtype(), [&](auto element) {
            using T = decltype(element);
            residual_backward<T>(arguments_of<T>(block, checked.home()), rows_of<T>(*grad), rows_of<T>(*a),
                                 gradients_of<T>(block, wanted));
        });
        order.finish();
    });
}

rc_status rc_residual_update_on(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                                rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity,
                                rc_stream stream) {
    return guarded([&] {
        const Block block{"rc_residual_update", n,        sources,    weights,     bias,
                          n_identity,           identity, activation, Use::written};
        const Wanted wanted{d_sources, nullptr, nullptr, d_identity};
        const Arguments checked = check_all(block, grad, a, wanted);
        with_dtype(block.dtype(), [&](auto element) { check_rate<decltype(element)>(lr, block.operation); });
        CallOrder order(checked, stream);
        with_dtype(block.dtype(), [&](auto element) {
            using T = decltype(element);
            residual_update<T>(arguments_of<T>(block, checked.home()), rows_of<T>(*grad), rows_of<T>(*a),
                               trained_of<T>(block), lr, gradients_of<T>(block, wanted));
        });
        order.finish();
    });
}

rc_status rc_residual_forward(int n, const rc_matrix* sources, const rc_matrix* weights, const rc_matrix* bias,
                              int n_identity, const rc_matrix* identity, rc_activation activation, rc_matrix* out) {
    return rc_residual_forward_on(n, sources, weights, bias, n_identity, identity, activation, out, nullptr);
}

rc_status rc_residual_backward(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                               const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                               const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                               rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity) {
    return rc_residual_backward_on(grad, a, n, sources, weights, bias, n_identity, identity, activation, d_sources,
                                   d_weights, d_bias, d_identity, nullptr);
}

rc_status rc_residual_update(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                             rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                             rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity) {
    return rc_residual_update_on(grad, a, n, sources, weights, bias, n_identity, identity, activation, lr, d_sources,
                                 d_identity, nullptr);
}

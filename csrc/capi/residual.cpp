// rc_residual_*: every matrix is checked, the block's dtype chosen, and csrc/functional called.
#include "functional/residual.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "capi/arguments.h"
#include "capi/guarded.h"
#include "capi/names.h"
#include "kernels/select.h"
#include "runtime/aligned.h"

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

    void check(Arguments& arguments) const;
};

std::string indexed(const char* name, int i) { return std::string(name) + "[" + std::to_string(i) + "]"; }

void check_count(bool good, const char* operation, const char* name, const char* range, int count) {
    if (!good)
        throw ShapeError(std::string(operation) + ": " + name + " must be " + range + ", got " + std::to_string(count));
}

void Block::check(Arguments& arguments) const {
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
}

template <class T>
Matrix<T> matrix_of(const rc_matrix& m) {
    const Rows<T> rows = rows_of<T>(m);
    return {rows.data, m.rows, m.columns, rows.stride};
}

template <class T>
ResidualArguments<T> arguments_of(const Block& block) {
    ResidualArguments<T> arguments;
    for (int s = 0; s < block.n; ++s) {
        arguments.sources.push_back(matrix_of<T>(block.sources[s]));
        arguments.weights.push_back(matrix_of<T>(block.weights[s]));
    }
    for (int i = 0; i < block.n_identity; ++i) arguments.identity.push_back(matrix_of<T>(block.identity[i]));
    if (block.bias) arguments.bias = static_cast<const T*>(block.bias->data);
    arguments.rows = block.rows();
    arguments.columns = block.columns();
    arguments.activation = activation_index(block.activation, block.operation);
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
void forward(const Block& block, const rc_matrix& out) {
    const ResidualArguments<T> arguments = arguments_of<T>(block);
    if (out.dtype == dtype_of<T>)
        residual_forward(arguments, rows_of<T>(out));
    else
        residual_forward(arguments, {}, rows_of<Compute<T>>(out));
}

// The gradients that are wanted, and room for those that are only needed on the way.
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

// Results that the kernels do not write to the caller: gradients of weights in bfloat16, as they are computed, and what
// nobody wants.
template <class T>
class Gradients {
public:
    Gradients(const Block& block, const Wanted& wanted, bool updates) : block_(block), wanted_(wanted) {
        for (int s = 0; wanted.d_sources && s < block.n; ++s) views_.sources.push_back(rows_of<T>(wanted.d_sources[s]));
        if (wanted.d_weights || updates)
            for (int s = 0; s < block.n; ++s)
                views_.weights.push_back(
                    weight_rows(wanted.d_weights ? &wanted.d_weights[s] : nullptr, block.weights[s]));
        if (wanted.d_bias || (updates && block.bias)) views_.bias = weight_rows(wanted.d_bias, *block.bias).data;
        if (wanted.d_identity && block.n_identity > 0) {
            views_.delta = rows_of<T>(wanted.d_identity[0]);
        } else {
            delta_ = AlignedArray<T>(block.rows() * block.columns());
            views_.delta = {delta_.data(), block.columns()};
        }
    }

    const ResidualGradients<T>& views() const { return views_; }

    // Once they are computed: what the caller wants otherwise, or again.
    void deliver() const {
        for (int s = 0; wanted_.d_weights && s < block_.n; ++s) round(views_.weights[s], wanted_.d_weights[s]);
        if (wanted_.d_bias) round({views_.bias, block_.columns()}, *wanted_.d_bias);
        for (int i = 1; wanted_.d_identity && i < block_.n_identity; ++i) {
            const MutableRows<T> copy = rows_of<T>(wanted_.d_identity[i]);
            for (std::int64_t row = 0; row < block_.rows(); ++row)
                std::copy_n(views_.delta.data + row * views_.delta.stride, block_.columns(),
                            copy.data + row * copy.stride);
        }
    }

private:
    MutableRows<Compute<T>> weight_rows(const rc_matrix* wanted, const rc_matrix& shape) {
        if (wanted && wanted->dtype == dtype_of<Compute<T>>) return rows_of<Compute<T>>(*wanted);
        rooms_.emplace_back(shape.rows * shape.columns);
        return {rooms_.back().data(), shape.columns};
    }
    static void round(MutableRows<Compute<T>> from, const rc_matrix& to) {
        if constexpr (!computes_itself<T>)
            if (to.dtype == dtype_of<T>) kernels<T>().narrow(to.rows, to.columns, from, rows_of<T>(to));
    }

    const Block& block_;
    const Wanted& wanted_;
    ResidualGradients<T> views_;
    std::vector<AlignedArray<Compute<T>>> rooms_;
    AlignedArray<T> delta_;
};

template <class T>
void backward(const Block& block, const rc_matrix& grad, const rc_matrix& a, const Wanted& wanted) {
    const Gradients<T> gradients(block, wanted, false);
    residual_backward<T>(arguments_of<T>(block), rows_of<T>(grad), rows_of<T>(a), gradients.views());
    gradients.deliver();
}

template <class T>
Strided<T> in_place(const rc_matrix& m) {
    const MutableRows<T> rows = rows_of<T>(m);
    return {rows.data, m.rows, m.columns, rows.stride, 1};
}

template <class T>
void update(const Block& block, const rc_matrix& grad, const rc_matrix& a, double lr, const Wanted& wanted) {
    const auto rate = static_cast<Compute<T>>(lr);
    if (!(rate > 0 && std::isfinite(rate)))
        throw ValueError(std::string(block.operation) + ": lr must be positive and finite in its dtype, got " +
                         number_text(lr));
    const Gradients<T> gradients(block, wanted, true);
    const ResidualGradients<T>& views = gradients.views();
    residual_backward<T>(arguments_of<T>(block), rows_of<T>(grad), rows_of<T>(a), views);
    gradients.deliver();
    for (int s = 0; s < block.n; ++s) descend(in_place<T>(block.weights[s]), views.weights[s].data, lr);
    if (block.bias) descend(in_place<T>(*block.bias), views.bias, lr);
}

void check_all(const Block& block, const rc_matrix* grad, const rc_matrix* a, const Wanted& wanted) {
    Arguments arguments(block.operation);
    block.check(arguments);
    arguments.check(grad, "grad", block.rows(), block.columns(), block.dtype(), Use::read);
    arguments.check(a, "a", block.rows(), block.columns(), block.dtype(), Use::read);
    check_wanted(block, wanted, arguments);
    arguments.check_overlaps();
}

}  // namespace
}  // namespace resnetcore::capi

using namespace resnetcore::capi;

rc_status rc_residual_forward(int n, const rc_matrix* sources, const rc_matrix* weights, const rc_matrix* bias,
                              int n_identity, const rc_matrix* identity, rc_activation activation, rc_matrix* out) {
    return guarded([&] {
        const Block block{"rc_residual_forward", n, sources, weights, bias, n_identity, identity, activation};
        Arguments arguments(block.operation);
        block.check(arguments);
        arguments.check(out, "out", block.rows(), block.columns(), block.dtype(), Use::written,
                        unrounded(block.dtype()));
        arguments.check_overlaps();
        with_dtype(block.dtype(), [&](auto element) { forward<decltype(element)>(block, *out); });
    });
}

rc_status rc_residual_backward(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                               const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                               const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                               rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity) {
    return guarded([&] {
        const Block block{"rc_residual_backward", n, sources, weights, bias, n_identity, identity, activation};
        const Wanted wanted{d_sources, d_weights, d_bias, d_identity};
        check_all(block, grad, a, wanted);
        with_dtype(block.dtype(), [&](auto element) { backward<decltype(element)>(block, *grad, *a, wanted); });
    });
}

rc_status rc_residual_update(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                             rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                             rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity) {
    return guarded([&] {
        const Block block{"rc_residual_update", n,        sources,    weights,     bias,
                          n_identity,           identity, activation, Use::written};
        const Wanted wanted{d_sources, nullptr, nullptr, d_identity};
        check_all(block, grad, a, wanted);
        with_dtype(block.dtype(), [&](auto element) { update<decltype(element)>(block, *grad, *a, lr, wanted); });
    });
}

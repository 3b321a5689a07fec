#include "xla/residual.h"

#include "functional/residual.h"
#include "math/activation.h"
#include "xla/call.h"

namespace resnetcore::xla {
namespace {

template <class T>
Matrix<T> matrix(Buffers& from, std::int64_t rows, std::int64_t columns) {
    return {from.take<T>({rows, columns}), rows, columns, columns};
}

template <class T>
MutableRows<T> mutable_rows(Buffers& from, std::int64_t rows, std::int64_t columns) {
    return {from.take<T>({rows, columns}), columns};
}

template <class T>
ResidualArguments<T> operands(const CallFrame& frame, Buffers& from) {
    ResidualArguments<T> arguments;
    const std::int64_t n = integer_attribute(frame, "sources"), n_identity = integer_attribute(frame, "identity");
    if (n < 1 || n_identity < 0) throw ValueError("there must be at least one source");
    const std::string activation = text_attribute(frame, "activation");
    arguments.activation = find_activation(activation);
    if (arguments.activation < 0) throw ValueError("unknown activation '" + activation + "'");
    for (std::int64_t s = 0; s < n; ++s) {
        arguments.sources.push_back(from.take_matrix<T>());
        if (s == 0) arguments.rows = arguments.sources[0].rows;
        if (arguments.sources.back().rows != arguments.rows) throw ShapeError("sources differ in their rows");
    }
    for (std::int64_t s = 0; s < n; ++s) {
        arguments.weights.push_back(from.take_matrix<T>());
        if (s == 0) arguments.columns = arguments.weights[0].columns;
        const Matrix<T>& w = arguments.weights.back();
        if (w.rows != arguments.sources[static_cast<std::size_t>(s)].columns || w.columns != arguments.columns)
            throw ShapeError("weights do not fit the sources");
    }
    for (std::int64_t i = 0; i < n_identity; ++i)
        arguments.identity.push_back(matrix<T>(from, arguments.rows, arguments.columns));
    if (from.left() > 0) arguments.bias = from.take<T>({arguments.columns});
    from.end();
    return arguments;
}

template <class T>
void forward(const CallFrame& frame) {
    Buffers given(frame.arguments, "argument"), results(frame.results, "result");
    const ResidualArguments<T> arguments = operands<T>(frame, given);
    const MutableRows<T> out = mutable_rows<T>(results, arguments.rows, arguments.columns);
    results.end();
    resnetcore::residual_forward(arguments, out);
}

template <class T>
void backward(const CallFrame& frame) {
    Buffers given(frame.arguments, "argument"), results(frame.results, "result");
    const Matrix<T> gradient = given.take_matrix<T>();
    const Matrix<T> a = matrix<T>(given, gradient.rows, gradient.columns);
    const ResidualArguments<T> arguments = operands<T>(frame, given);
    if (gradient.rows != arguments.rows || gradient.columns != arguments.columns)
        throw ShapeError("the gradient does not fit the block");
    ResidualGradients<T> out;
    if (integer_attribute(frame, "source_gradients") != 0)
        for (const Matrix<T>& source : arguments.sources)
            out.sources.push_back(mutable_rows<T>(results, source.rows, source.columns));
    for (const Matrix<T>& w : arguments.weights)
        out.weights.push_back(mutable_rows<Compute<T>>(results, w.rows, w.columns));
    out.delta = mutable_rows<T>(results, arguments.rows, arguments.columns);
    if (arguments.bias) out.bias = results.take<Compute<T>>({arguments.columns});
    results.end();
    resnetcore::residual_backward(arguments, {gradient.data, gradient.stride}, {a.data, a.stride}, out);
}

}  // namespace

Status* residual_forward(CallFrame* frame) {
    return answer(frame, "residual_forward", [](const CallFrame& call) {
        with_type(call, [&](auto element) { forward<decltype(element)>(call); });
    });
}

Status* residual_backward(CallFrame* frame) {
    return answer(frame, "residual_backward", [](const CallFrame& call) {
        with_type(call, [&](auto element) { backward<decltype(element)>(call); });
    });
}

}  // namespace resnetcore::xla

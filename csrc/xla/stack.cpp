#include "xla/stack.h"

#include <algorithm>
#include <vector>

#include "xla/call.h"
#include "xla/stack_program.h"

namespace resnetcore::xla {
namespace {

bool flag(const CallFrame& frame, const char* name) { return integer_attribute(frame, name) != 0; }

// body(StackProgram<T>&) of the call's program.
template <class Body>
void with_program(const CallFrame& frame, Body body) {
    const auto program =
        find_stack(text_attribute(frame, "topology"), flag(frame, "training"), flag(frame, "input_gradient"), true);
    std::visit([&](const auto& one) { body(*one); }, *program);
}

// A tape of another layout would be of another size, or be read wrongly.
void check_layout(const CallFrame& frame) {
    const std::int64_t given = integer_attribute(frame, "tape_layout", 0);
    if (given != tape_layout)
        throw BuildFeatureError(
            "the program was exported by a version of resnetcore whose tapes lie otherwise (layout " +
            std::to_string(given) + ", here " + std::to_string(tape_layout) + "); export it again with this version");
}

template <class Element>
Element* take(Buffers& from, const Parameter& p) {
    return p.is_matrix() ? from.take<Element>({p.rows, p.columns}) : from.take<Element>({p.columns});
}

template <class T>
VjpPass<T> pass_of(const Vjp<T>& vjp, Buffers& given) {
    VjpPass<T> pass;
    const Matrix<Compute<T>> x = given.take_matrix<Compute<T>>();
    if (x.columns != vjp.topology().inputs)
        throw ShapeError("x must have " + std::to_string(vjp.topology().inputs) + " columns, got " +
                         std::to_string(x.columns));
    pass.x = {x.data, x.stride};
    pass.rows = x.rows;
    const std::uint32_t* seed = given.take<std::uint32_t>({2});
    pass.seed = std::uint64_t{seed[1]} << 32 | seed[0];
    for (const Parameter& p : vjp.parameters().all) pass.values.push_back(take<Compute<T>>(given, p));
    given.end();
    return pass;
}

// By parameter, a result for each that `wanted` says, in order; null for the others.
template <class T, class Wanted>
std::vector<Compute<T>*> results_of(const Vjp<T>& vjp, Buffers& results, Wanted wanted) {
    std::vector<Compute<T>*> found;
    for (const Parameter& p : vjp.parameters().all) found.push_back(wanted(p) ? take<Compute<T>>(results, p) : nullptr);
    results.end();
    return found;
}

bool is_running(const Parameter& p) { return p.role == Role::running_mean || p.role == Role::running_var; }

template <class T>
void forward(const CallFrame& frame, StackProgram<T>& program) {
    const Vjp<T>& vjp = program.vjp();
    Buffers given(frame.arguments, "argument"), results(frame.results, "result");
    VjpPass<T> pass = pass_of(vjp, given);
    Compute<T>* out = results.take<Compute<T>>({pass.rows, vjp.outputs()});
    const bool taped = flag(frame, "taped");
    if (taped) check_layout(frame);
    if (taped) pass.tape = results.take<std::uint8_t>({program.tape_bytes(pass.rows)});
    const bool moves = vjp.options().training;
    const auto statistics = results_of(vjp, results, [&](const Parameter& p) { return moves && is_running(p); });
    if (pass.rows > 0) return program.forward(pass, out, statistics);
    for (std::size_t id = 0; id < statistics.size(); ++id)
        if (statistics[id]) std::copy_n(pass.values[id], vjp.parameters().all[id].size(), statistics[id]);
}

template <class T>
void backward(const CallFrame& frame, StackProgram<T>& program) {
    check_layout(frame);
    const Vjp<T>& vjp = program.vjp();
    Buffers given(frame.arguments, "argument"), results(frame.results, "result");
    const Matrix<Compute<T>> d_out = given.take_matrix<Compute<T>>();
    void* tape = given.take<std::uint8_t>({program.tape_bytes(d_out.rows)});
    VjpPass<T> pass = pass_of(vjp, given);
    if (d_out.rows != pass.rows || d_out.columns != vjp.outputs())
        throw ShapeError("the gradient does not fit the stack");
    pass.tape = tape;
    Compute<T>* d_x = nullptr;
    if (vjp.options().input_gradient) d_x = results.take<Compute<T>>({pass.rows, vjp.topology().inputs});
    const auto gradients = results_of(vjp, results, [](const Parameter& p) { return p.trained; });
    program.backward(pass, d_out.data, d_x, gradients);
}

}  // namespace

Status* stack_forward(CallFrame* frame) {
    return answer(frame, "residual_stack_forward",
                  [](const CallFrame& call) { with_program(call, [&](auto& program) { forward(call, program); }); });
}

Status* stack_backward(CallFrame* frame) {
    return answer(frame, "residual_stack_backward",
                  [](const CallFrame& call) { with_program(call, [&](auto& program) { backward(call, program); }); });
}

}  // namespace resnetcore::xla

// The XLA FFI handlers, as capsules that jax.ffi.register_ffi_target takes, and what a trace has to know of a stack.
#include <memory>
#include <string>

#include "bindings/register.h"
#include "xla/residual.h"
#include "xla/stack.h"
#include "xla/stack_program.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

py::capsule capsule(xla::Handler handler) { return py::capsule(reinterpret_cast<const void*>(handler)); }

py::dict xla_handlers() {
    py::dict all;
    all["resnetcore_residual_forward"] = capsule(&xla::residual_forward);
    all["resnetcore_residual_backward"] = capsule(&xla::residual_backward);
    all["resnetcore_residual_stack_forward"] = capsule(&xla::stack_forward);
    all["resnetcore_residual_stack_backward"] = capsule(&xla::stack_backward);
    return all;
}

// Holds a program for the calls that name it.
struct XlaStack {
    std::shared_ptr<const xla::AnyStackProgram> program;

    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, *program);
    }
};

py::list parameters_of(const XlaStack& stack) {
    return stack.with([](const auto& program) {
        py::list all;
        for (const Parameter& p : program.vjp().parameters().all) {
            py::tuple shape = py::make_tuple(p.columns);
            if (p.is_matrix()) shape = py::make_tuple(p.rows, p.columns);
            all.append(py::make_tuple(p.name, shape, p.trained));
        }
        return all;
    });
}

}  // namespace

void register_xla(py::module_& m) {
    m.def(
        "tape_layout", [] { return tape_layout; },
        "Number of the layout of a stack's tape; another one with each change.");
    m.def("xla_handlers", &xla_handlers, "Handlers for XLA's foreign function interface on the CPU, by target name.");
    py::class_<XlaStack>(m, "XlaStack",
                         "What the handlers of a stack run, named by its topology's text; as long as this lives, it is "
                         "made once.")
        .def(py::init([](const std::string& topology, bool training, bool input_gradient) {
                 return XlaStack{xla::find_stack(topology, training, input_gradient, false)};
             }),
             py::arg("topology"), py::arg("training"), py::arg("input_gradient"))
        .def_property_readonly(
            "outputs",
            [](const XlaStack& s) { return s.with([](const auto& program) { return program.vjp().outputs(); }); },
            "Width of the last layer.")
        .def_property_readonly("parameters", &parameters_of,
                               "Name, shape, (in, out) for a matrix, and whether it is trained.")
        .def_property_readonly(
            "tape_bytes",
            [](const XlaStack& s) {
                return s.with([](const auto& program) {
                    return py::make_tuple(program.vjp().tape_bytes(), program.vjp().tape_bytes_of_row());
                });
            },
            "Of a tape: so many, and so many for each row.");
}

}  // namespace resnetcore

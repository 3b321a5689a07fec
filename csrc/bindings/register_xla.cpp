// The XLA FFI handlers, as capsules that jax.ffi.register_ffi_target takes.
#include "bindings/register.h"
#include "xla/residual.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

py::capsule capsule(xla::Handler handler) { return py::capsule(reinterpret_cast<const void*>(handler)); }

py::dict xla_handlers() {
    py::dict all;
    all["resnetcore_residual_forward"] = capsule(&xla::residual_forward);
    all["resnetcore_residual_backward"] = capsule(&xla::residual_backward);
    return all;
}

}  // namespace

void register_xla(py::module_& m) {
    m.def("xla_handlers", &xla_handlers, "Handlers for XLA's foreign function interface on the CPU, by target name.");
}

}  // namespace resnetcore

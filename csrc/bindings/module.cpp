#include "bindings/register.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "resnetcore's kernels, networks and training step";
    resnetcore::register_errors(m);
    resnetcore::register_config(m);
    resnetcore::register_dlpack(m);
    resnetcore::register_device_array(m);
    resnetcore::register_ops(m);
    resnetcore::register_device_ops(m);
    resnetcore::register_network(m);
    resnetcore::register_plans(m);
    resnetcore::register_trainer(m);
    resnetcore::register_vjp(m);
    resnetcore::register_xla(m);
}

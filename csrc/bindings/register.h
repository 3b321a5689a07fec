// One function for each concept that Python sees, in the order in which module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace resnetcore {

void register_errors(pybind11::module_& m);
void register_config(pybind11::module_& m);
void register_dlpack(pybind11::module_& m);
void register_device_array(pybind11::module_& m);
void register_ops(pybind11::module_& m);
void register_device_ops(pybind11::module_& m);
void register_network(pybind11::module_& m);
void register_plans(pybind11::module_& m);
void register_trainer(pybind11::module_& m);
void register_vjp(pybind11::module_& m);
void register_xla(pybind11::module_& m);

}  // namespace resnetcore

// C++ exceptions become the Python classes of resnetcore._errors, one to one.
#include "base/error.h"
#include "bindings/register.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

// Looked up when it is needed: importing the module must not import the package that imports it.
void raise(const char* name, const char* text) {
    PyErr_SetString(py::module_::import("resnetcore._errors").attr(name).ptr(), text);
}

}  // namespace

void register_errors(py::module_&) {
    py::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const ShapeError& e) {
            raise("ShapeError", e.what());
        } catch (const DTypeError& e) {
            raise("DTypeError", e.what());
        } catch (const DeviceError& e) {
            raise("DeviceError", e.what());
        } catch (const CheckpointError& e) {
            raise("CheckpointError", e.what());
        } catch (const BuildFeatureError& e) {
            raise("BuildFeatureError", e.what());
        } catch (const ValueError& e) {
            PyErr_SetString(PyExc_ValueError, e.what());
        } catch (const BufferError& e) {
            PyErr_SetString(PyExc_BufferError, e.what());
        } catch (const NonFiniteError& e) {
            PyErr_SetString(PyExc_FloatingPointError, e.what());
        } catch (const OutOfMemoryError& e) {
            PyErr_SetString(PyExc_MemoryError, e.what());
        } catch (const std::bad_alloc&) {
            PyErr_SetString(PyExc_MemoryError,
                            "resnetcore: not enough memory; a smaller network or a smaller batch needs less");
        }
    });
}

}  // namespace resnetcore

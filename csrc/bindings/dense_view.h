// Where a dense array lies, for the time of a call: NumPy's, a DeviceArray, or a tensor whose type has DLPack's C
// exchange API. That costs a hundredth of what an array made of the tensor does, which is most of what a small
// network's step takes.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "bindings/dlpack_structs.h"
#include "runtime/device.h"

namespace resnetcore {

struct DenseShape {
    int ndim;
    std::int64_t sizes[2];
};

// Looks at the arrays of one call, most of which are of one type.
class DenseViews {
public:
    explicit DenseViews(const Device& device) : device_(device) {}

    // The memory of an aligned array of Element, in C order, of this shape and on the device; else a ShapeError, which
    // `operation` and `name` begin.
    template <class Element>
    Element* find(pybind11::handle array, const DenseShape& shape, bool written, const char* operation,
                  const std::string& name);

    // Whether it is a tensor of such a type in the host's memory, aligned and in C order, of whatever shape and dtype.
    bool reads(pybind11::handle array);

private:
    bool look(pybind11::handle array, dlpack::Tensor& tensor);

    const Device& device_;
    const PyTypeObject* type_ = nullptr;
    const dlpack::ExchangeApi* api_ = nullptr;  // of `type_`
};

}  // namespace resnetcore

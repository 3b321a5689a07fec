// An array in a GPU's memory, whoever made it: the one form in which such arrays come in and go out.
//
// Invariant: what it shows is there for work that is put on its device's stream from now on; no work of this library's
// that reads or writes it is under way while Python runs, but for a fit's on its X, which it keeps for as long, for
// a call's that was given a stream, by which the caller orders what becomes of the memory (runtime/stream_order.h), and
// for a prediction's on memory that is the library's alone: who is given that first finds it ordered, or waited for.
// So its memory may be given back at any time, and by any thread.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/cuda_device.h"
#include "runtime/staged.h"

namespace resnetcore {

struct DeviceArray {
    CudaDevice* device = nullptr;
    char* data = nullptr;
    pybind11::dtype dtype;
    std::vector<std::int64_t> shape, strides;  // strides in elements
    bool read_only = false;
    pybind11::object owner;  // of the memory

    // In C order: of any content, for what is written whole; or zeros. Throws std::bad_alloc.
    static DeviceArray unset(CudaDevice& device, const pybind11::dtype& dtype, std::vector<std::int64_t> shape);
    static DeviceArray zeros(CudaDevice& device, const pybind11::dtype& dtype, std::vector<std::int64_t> shape);

    std::int64_t size() const;
    std::size_t bytes() const { return static_cast<std::size_t>(size() * dtype.itemsize()); }
    bool is_dense() const;       // in C order, without gaps
    DeviceArray as_row() const;  // a vector, as a matrix of one row
    DeviceArray transposed() const;
    // Part of the first dimension, as Python slices it.
    DeviceArray operator[](const pybind11::slice& rows) const;
    // The same elements, apart as they are, in memory of their own.
    DeviceArray copy() const;
    // Others read it from now on: its memory is not written to before what CUDA's default stream is asked for until
    // then.
    void note_given() const;
    // Whether the memory is the library's, and nobody else has been given any of it.
    bool is_ours_alone() const;
    // Work of the library's on it may be under way from now on: only for what is ours alone.
    void note_pending() const;
    // Waits for that work, before somebody is given it who waits for no stream.
    void wait_if_pending() const;
    // A copy in the host's memory, of the record that stands for bfloat16 (bindings/array.h) where it is that.
    pybind11::array numpy() const;
    // Of the same addresses and strides, for whoever asks about them alone: the host cannot read what is there.
    pybind11::array layout() const;
};

// A stream or memory, as Python names it.
void* at_address(std::intptr_t address);

// `find_device`, without the GIL: loading a GPU's kernels may take seconds.
Device& device_named(const std::string& device);

// Throws DeviceError, beginning with `operation`, where it is none that can be had.
CudaDevice& gpu_named(const std::string& device, const char* operation);

// The memory of a library that says itself where it is; `owner` keeps it. Its strides are in elements, and whoever asks
// for work on it sees to the order of streams.
DeviceArray array_at(const std::string& device, std::intptr_t address, std::vector<std::int64_t> shape,
                     std::vector<std::int64_t> strides, const pybind11::dtype& dtype, const pybind11::object& owner);

// Looks at `value`, which offers its memory by DLPack or __cuda_array_interface__, in place. Its producer's work so far
// comes before whatever is asked of the device's stream from now on. `what` begins the messages. Throws BufferError
// where what is offered is not sound, and DTypeError for elements that NumPy lacks. Where it has no elements and does
// not say where it is, it is on `home`. Where it is to be `written` to, throws ValueError unless it says that it may
// be.
DeviceArray device_array(const pybind11::object& value, const std::string& what, const std::string& home,
                         bool written = false);

// A copy of the host's array, in C order. Throws DeviceError where `device` is no GPU that can be had.
DeviceArray to_device(const pybind11::array& array, const std::string& device);

// A matrix of floats as the device's kernels gather from it. Throws DTypeError for other elements.
GatherArgs gathered_from(const DeviceArray& matrix);

}  // namespace resnetcore

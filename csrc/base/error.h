// Every error a caller can see is one of these types; csrc/bindings maps them, one to one, to Python exceptions.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

namespace resnetcore {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct ShapeError : Error {
    using Error::Error;
};  // a ValueError in Python
struct DTypeError : Error {
    using Error::Error;
};  // a TypeError
struct DeviceError : Error {
    using Error::Error;
};  // a RuntimeError
struct CheckpointError : Error {
    using Error::Error;
};  // a ValueError
struct BuildFeatureError : Error {
    using Error::Error;
};  // a RuntimeError

// An array that another library offers and that cannot be taken (Python's BufferError).
struct BufferError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A value out of its range (a plain ValueError: nothing is wrong with a shape).
struct ValueError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};
// A loss that became NaN or infinite (FloatingPointError).
struct NonFiniteError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Want of memory that a smaller network or batch would not help (MemoryError, as of every std::bad_alloc).
class OutOfMemoryError : public std::bad_alloc {
public:
    explicit OutOfMemoryError(const std::string& text) : text_(text) {}
    const char* what() const noexcept override { return text_.what(); }

private:
    std::runtime_error text_;  // a string that is copied without throwing
};

}  // namespace resnetcore

// A call from XLA, checked as it is read: what does not fit is an exception, and `answer` makes it an error of XLA's.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "functional/residual.h"
#include "math/bfloat16.h"
#include "xla/ffi.h"

namespace resnetcore::xla {

template <class T>
constexpr DataType type_of();
template <>
constexpr DataType type_of<float>() {
    return float32_type;
}
template <>
constexpr DataType type_of<double>() {
    return float64_type;
}
template <>
constexpr DataType type_of<bfloat16>() {
    return bfloat16_type;
}
template <>
constexpr DataType type_of<std::uint8_t>() {
    return uint8_type;
}
template <>
constexpr DataType type_of<std::uint32_t>() {
    return uint32_type;
}

// A call's arguments, or its results, taken one after the other. They are dense, in C order.
class Buffers {
public:
    Buffers(const Values& values, const char* what) : values_(values), what_(what) {}

    std::int64_t left() const { return values_.count - next_; }
    std::int32_t type() const { return at(next_).type; }  // of the next
    template <class T>
    T* take(const std::vector<std::int64_t>& shape) {
        return static_cast<T*>(checked(type_of<T>(), shape).data);
    }
    // Any shape of two dimensions.
    template <class T>
    Matrix<T> take_matrix() {
        const std::vector<std::int64_t> shape = shape_of(at(next_));
        if (shape.size() != 2) throw ShapeError(name(next_) + " must have 2 dimensions");
        return {take<T>(shape), shape[0], shape[1], shape[1]};
    }
    void end() const;

private:
    static std::vector<std::int64_t> shape_of(const Buffer& buffer) {
        return {buffer.shape, buffer.shape + buffer.rank};
    }
    std::string name(std::int64_t index) const { return what_ + std::string(" ") + std::to_string(index); }
    const Buffer& at(std::int64_t index) const;
    const Buffer& checked(DataType type, const std::vector<std::int64_t>& shape);

    const Values& values_;
    const char* const what_;
    std::int64_t next_ = 0;
};

std::int64_t integer_attribute(const CallFrame& frame, const char* name);
// `otherwise` where a program traced by an older version lacks it.
std::int64_t integer_attribute(const CallFrame& frame, const char* name, std::int64_t otherwise);
std::string text_attribute(const CallFrame& frame, const char* name);

// What every handler does around `body`: tells who asks which version this is, and turns exceptions into XLA's errors.
Status* answer(CallFrame* frame, const char* operation, void (*body)(const CallFrame&));

// body(T()), T being what the first argument's elements are.
template <class Body>
void with_type(const CallFrame& frame, Body body) {
    const std::int32_t type = Buffers(frame.arguments, "argument").type();
    if (type == float32_type) return body(float());
    if (type == float64_type) return body(double());
    if (type == bfloat16_type) return body(bfloat16());
    throw DTypeError("arguments must be float32, float64 or bfloat16");
}

}  // namespace resnetcore::xla

// Matrices in the memory of a CUDA device, or of its emulation, with a copy on the host; filled from a generator that
// repeats.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/cuda/module.h"
#include "small_integers.h"

namespace resnetcore {

inline const CudaModule& device() { return *resnetcore_cuda_module(); }

template <class T>
const KernelTable<T>& device_kernels();
template <>
inline const KernelTable<float>& device_kernels<float>() {
    return *device().f32;
}
template <>
inline const KernelTable<double>& device_kernels<double>() {
    return *device().f64;
}
template <>
inline const KernelTable<bfloat16>& device_kernels<bfloat16>() {
    return *device().bf16;
}
template <>
inline const KernelTable<bfloat16x2>& device_kernels<bfloat16x2>() {
    return *device().bf16x2;
}

inline double value_of(bfloat16 x) { return to_float(x); }
inline double value_of(bfloat16x2 x) { return static_cast<double>(to_float(x.high)) + to_float(x.low); }
template <class T>
double value_of(T x) {
    return static_cast<double>(x);
}
template <class T>
T stored(double x) {
    if constexpr (std::is_same<T, bfloat16>::value)
        return to_bfloat16(static_cast<float>(x));
    else if constexpr (std::is_same<T, bfloat16x2>::value)
        return to_bfloat16x2(static_cast<float>(x));
    else
        return static_cast<T>(x);
}

// What rounding to T, or arithmetic in Compute<T>, may cost, relative to the value.
template <class T>
constexpr double rounding = std::is_same<T, bfloat16>::value     ? 0x1p-8
                            : std::is_same<T, bfloat16x2>::value ? 0x1p-15
                            : std::is_same<T, double>::value     ? 0x1p-53
                                                                 : 0x1p-24;
// What a sum of products may be off by, relative to that of their magnitudes.
template <class T>
constexpr double product_error = std::is_same<T, bfloat16x2>::value ? 0x1p-16 + 16 * 0x1p-24
                                 : std::is_same<T, double>::value   ? 16 * 0x1p-53
                                                                    : 16 * 0x1p-24;

template <class T>
const char* type_of() {
    return std::is_same<T, float>::value      ? "float"
           : std::is_same<T, double>::value   ? "double"
           : std::is_same<T, bfloat16>::value ? "bfloat16"
                                              : "bfloat16x2";
}

// What lies behind every row of a matrix: so much, or up to where rows begin on boundaries of 16 bytes in any type.
using Gap = std::int64_t (*)(std::int64_t width, std::int64_t wanted);
inline std::int64_t as_wanted(std::int64_t, std::int64_t wanted) { return wanted; }
inline std::int64_t to_boundaries(std::int64_t width, std::int64_t wanted) {
    return (width + wanted + 7) / 8 * 8 - width;
}

enum class Fill { zeros, integers, reals };

// Values of a matrix with a gap after every row, which no kernel may change.
template <class T>
class DeviceMatrix {
public:
    DeviceMatrix(std::int64_t rows, std::int64_t columns, Fill fill = Fill::zeros, std::int64_t gap = 0)
        : rows(rows), columns(columns), stride(columns + gap), host(static_cast<std::size_t>(rows * stride)) {
        for (T& x : host) x = canary();
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                (*this)(i, j) = stored<T>(fill == Fill::zeros ? 0 : fill == Fill::integers ? small_integer() : real());
        memory_ = static_cast<T*>(device().allocate(bytes()));
        upload();
    }
    ~DeviceMatrix() { device().release(0, memory_); }
    DeviceMatrix(const DeviceMatrix&) = delete;

    T& operator()(std::int64_t i, std::int64_t j) { return host[static_cast<std::size_t>(i * stride + j)]; }
    double at(std::int64_t i, std::int64_t j) { return value_of((*this)(i, j)); }
    T* data() { return memory_; }
    Rows<T> view() { return {memory_, stride}; }
    MutableRows<T> mutable_view() { return {memory_, stride}; }
    void upload() { CHECK(device().upload(memory_, host.data(), bytes()) == 0, "upload"); }
    void download() {
        CHECK(device().download(host.data(), memory_, bytes()) == 0, "download");
        const T untouched = canary();
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = columns; j < stride; ++j)
                CHECK(std::memcmp(&(*this)(i, j), &untouched, sizeof(T)) == 0, "gap after row %d written", int(i));
    }
    // That the device has the same bits.
    bool unchanged() {
        const std::vector<T> before = host;
        download();
        return std::memcmp(before.data(), host.data(), bytes()) == 0;
    }
    bool same_bits(DeviceMatrix& other) { return std::memcmp(host.data(), other.host.data(), bytes()) == 0; }

    const std::int64_t rows, columns, stride;
    std::vector<T> host;

private:
    static T canary() { return stored<T>(-12345.5); }
    std::size_t bytes() const { return host.size() * sizeof(T); }
    T* memory_;
};

// Something that is no matrix, in device memory.
template <class Value>
class OnDevice {
public:
    explicit OnDevice(const Value& value) : memory_(static_cast<Value*>(device().allocate(sizeof value))) {
        set(value);
    }
    ~OnDevice() { device().release(0, memory_); }
    void set(const Value& value) { device().upload(memory_, &value, sizeof value); }
    Value* data() const { return memory_; }
    Value get() const {
        Value value;
        CHECK(device().download(&value, memory_, sizeof value) == 0, "download");
        return value;
    }

private:
    Value* memory_;
};

// visit(T()) for every type of storage.
template <class Visit>
void each_type(Visit visit) {
    visit(float());
    visit(double());
    visit(bfloat16());
    visit(bfloat16x2());
}

inline std::int64_t one_of(std::initializer_list<std::int64_t> choices) {
    return choices.begin()[next_noise() % choices.size()];
}
inline bool either() { return next_noise() >> 31; }

}  // namespace resnetcore

// Zeroed memory of one device, owned by one object; the host's where none is named. Throws std::bad_alloc and then
// holds nothing. Elements are for kernels and copies of that device alone, unless it is the host (runtime/device.h).
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "runtime/device.h"

namespace resnetcore {

template <class T>
class AlignedArray {
public:
    AlignedArray() = default;
    explicit AlignedArray(std::int64_t size) : AlignedArray(host_device(), size) {}
    // Nothing yet: for `reserve`.
    explicit AlignedArray(Device& device) : data_(nullptr, Release{&device}) {}
    AlignedArray(Device& device, std::int64_t size) : AlignedArray(device) {
        if (size < 0 || static_cast<std::uint64_t>(size) > (SIZE_MAX / 2) / sizeof(T)) throw std::bad_alloc();
        data_.reset(static_cast<T*>(device.allocate_counted(static_cast<std::size_t>(size) * sizeof(T))));
        size_ = size;
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::int64_t size() const { return size_; }
    std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
    T& operator[](std::int64_t i) { return data_.get()[i]; }
    const T& operator[](std::int64_t i) const { return data_.get()[i]; }

    // Memory that only ever grows; what it held before is lost when it does.
    void reserve(std::int64_t size) {
        if (size <= size_) return;
        Device* const device = data_.get_deleter().device;
        data_.reset();
        size_ = 0;
        *this = device ? AlignedArray(*device, size) : AlignedArray(size);
    }

private:
    struct Release {
        Device* device = nullptr;  // null: the host, once there is memory
        void operator()(T* memory) const { device->release(memory); }
    };
    std::unique_ptr<T, Release> data_;
    std::int64_t size_ = 0;
};

}  // namespace resnetcore

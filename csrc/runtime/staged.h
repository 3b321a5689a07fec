// A caller's array where a device's kernels read it: in place on the host, and in the device's memory, else as a copy
// in memory of the device that only grows, and so has the same address for every batch that fits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/aligned.h"

namespace resnetcore {

// Where an array lies that a caller gives or is given.
enum class Memory { host, device };

template <class T>
class Staged {
public:
    explicit Staged(Device& device) : device_(device), copy_(device) {}

    // Null stays null.
    const T* values(const T* from, std::int64_t size) {
        if (device_.is_host() || !from) return from;
        copy_.reserve(size);
        device_.upload(copy_.data(), from, static_cast<std::size_t>(size) * sizeof(T));
        return copy_.data();
    }
    Rows<T> rows(Rows<T> from, std::int64_t rows, std::int64_t columns, Memory in = Memory::host) {
        if (device_.is_host() || !from.data || in == Memory::device) return from;
        if (from.stride == columns || rows == 1) return {values(from.data, rows * columns), columns};
        dense_.resize(static_cast<std::size_t>(rows * columns));
        for (std::int64_t i = 0; i < rows; ++i)
            std::copy_n(from.data + i * from.stride, columns, dense_.data() + i * columns);
        return {values(dense_.data(), rows * columns), columns};
    }

private:
    Device& device_;
    AlignedArray<T> copy_;
    std::vector<T> dense_;
};

// Where kernels leave rows that the caller is to have: there at once on the host, else in the device's memory until
// `finish`, and for good where the caller's are there.
template <class T>
class Returned {
public:
    explicit Returned(Device& device) : device_(device), rows_(device) {}

    MutableRows<T> begin(MutableRows<T> to, std::int64_t rows, std::int64_t columns, Memory in = Memory::host) {
        to_ = to, count_ = rows, columns_ = columns, in_ = in;
        if (device_.is_host() || !to.data || in == Memory::device) return to;
        rows_.reserve(rows * columns);
        return {rows_.data(), columns};
    }
    void finish() {
        if (device_.is_host() || !to_.data) return;
        if (in_ == Memory::device) return device_.synchronize();
        if (to_.stride == columns_ || count_ == 1) return download(to_.data);
        dense_.resize(static_cast<std::size_t>(count_ * columns_));
        download(dense_.data());
        for (std::int64_t i = 0; i < count_; ++i)
            std::copy_n(dense_.data() + i * columns_, columns_, to_.data + i * to_.stride);
    }

private:
    void download(T* to) {
        device_.download(to, rows_.data(), static_cast<std::size_t>(count_ * columns_) * sizeof(T));
    }

    Device& device_;
    AlignedArray<T> rows_;
    std::vector<T> dense_;
    MutableRows<T> to_;
    std::int64_t count_ = 0, columns_ = 0;
    Memory in_ = Memory::host;
};

}  // namespace resnetcore

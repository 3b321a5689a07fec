// A host array where a device's kernels read it: in place on the host, else as a copy in memory of the device that
// only grows, and so has the same address for every batch that fits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/aligned.h"

namespace resnetcore {

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
    Rows<T> rows(Rows<T> from, std::int64_t rows, std::int64_t columns) {
        if (device_.is_host() || !from.data) return from;
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

// Where kernels leave rows that the host is to have: there at once on the host, else in the device's memory until
// `finish`.
template <class T>
class Returned {
public:
    explicit Returned(Device& device) : device_(device), rows_(device) {}

    // `to` is dense.
    T* begin(T* to, std::int64_t size) {
        to_ = to, size_ = size;
        if (device_.is_host() || !to) return to;
        rows_.reserve(size);
        return rows_.data();
    }
    void finish() {
        if (!device_.is_host() && to_) device_.download(to_, rows_.data(), static_cast<std::size_t>(size_) * sizeof(T));
    }

private:
    Device& device_;
    AlignedArray<T> rows_;
    T* to_ = nullptr;
    std::int64_t size_ = 0;
};

}  // namespace resnetcore

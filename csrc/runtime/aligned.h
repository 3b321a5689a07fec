// Zeroed memory on whole cache lines, owned by one object; large arrays on huge pages where the system gives them to
// who asks, as a walk through the page tables costs more than a line from L3. Throws std::bad_alloc and then holds
// nothing.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace resnetcore {

template <class T>
class AlignedArray {
public:
    AlignedArray() = default;
    explicit AlignedArray(std::int64_t size) : size_(size) {
        constexpr std::size_t line = 64, huge_page = std::size_t{2} << 20;
        if (size < 0 || static_cast<std::uint64_t>(size) > (SIZE_MAX / 2) / sizeof(T)) throw std::bad_alloc();
        const std::size_t bytes = (static_cast<std::size_t>(size) * sizeof(T) + line) / line * line;
        const std::size_t alignment = bytes < huge_page ? line : huge_page;
        data_.reset(static_cast<T*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)));
        if (!data_) throw std::bad_alloc();
        if (alignment == huge_page) madvise(data_.get(), bytes, MADV_HUGEPAGE);
        std::memset(data_.get(), 0, bytes);
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::int64_t size() const { return size_; }
    T& operator[](std::int64_t i) { return data_.get()[i]; }
    const T& operator[](std::int64_t i) const { return data_.get()[i]; }

    // Memory that only ever grows; what it held before is lost when it does.
    void reserve(std::int64_t size) {
        if (size > size_) *this = AlignedArray(), *this = AlignedArray(size);
    }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    std::int64_t size_ = 0;
};

}  // namespace resnetcore

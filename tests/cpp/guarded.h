// An array whose last (or first) element lies against a page that may not be touched: AddressSanitizer does not see
// masked vector accesses, the processor does.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

enum class Flush { end, start };

template <class T>
class Guarded {
public:
    Guarded(std::int64_t size, Flush flush) : size_(size) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
        const std::size_t inside = (bytes + page - 1) / page * page + page;
        length_ = inside + 2 * page;
        base_ = static_cast<char*>(mmap(nullptr, length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base_ == MAP_FAILED) throw std::bad_alloc();
        mprotect(base_ + page, inside, PROT_READ | PROT_WRITE);
        data_ = reinterpret_cast<T*>(flush == Flush::end ? base_ + page + inside - bytes : base_ + page);
    }
    ~Guarded() { munmap(base_, length_); }
    Guarded(const Guarded&) = delete;

    T* data() { return data_; }
    std::int64_t size() const { return size_; }
    T& operator[](std::int64_t i) { return data_[i]; }

private:
    char* base_ = nullptr;
    std::size_t length_ = 0;
    T* data_ = nullptr;
    std::int64_t size_;
};

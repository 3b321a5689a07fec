// Arrays that go to a device together: a block of pinned memory, a block of the device's laid out in the same way, and
// one copy, which nobody waits for.
//
// Invariant: both blocks only grow, and so have the same addresses for everything that fits. They are not written again
// before work that was asked for after `send` has been waited for: that is up to the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/aligned.h"

namespace resnetcore {

// Pinned memory, owned by one object.
class Pinned {
public:
    explicit Pinned(Device& device) : memory_(nullptr, Release{&device}) {}
    Pinned(Device& device, std::size_t bytes) : memory_(device.allocate_pinned(bytes), Release{&device}) {}
    void* get() const { return memory_.get(); }

private:
    struct Release {
        Device* device;
        void operator()(void* memory) const { device->release_pinned(memory); }
    };
    std::unique_ptr<void, Release> memory_;
};

// A place in a device's order of work, owned by one object.
class Mark {
public:
    explicit Mark(Device& device) : device_(device), mark_(device.make_mark()) {}
    Mark(const Mark&) = delete;
    ~Mark() { device_.discard_mark(mark_); }
    void set() { device_.set_mark(mark_); }
    void wait() { device_.wait_for(mark_); }

private:
    Device& device_;
    void* const mark_;
};

class Parcel {
public:
    template <class T>
    struct Place {
        std::size_t offset = 0;
        std::int64_t size = 0;
    };

    explicit Parcel(Device& device) : device_(device), here_(device), there_(device) {}

    void begin() { bytes_ = 0; }
    // Room for an array; all of them before `pack`.
    template <class T>
    Place<T> add(std::int64_t size) {
        const Place<T> place{bytes_, size};
        bytes_ += (static_cast<std::size_t>(size) * sizeof(T) + boundary - 1) / boundary * boundary;
        return place;
    }
    void pack() {
        if (bytes_ <= there_.bytes()) return;
        here_ = Pinned(device_, bytes_);
        there_.reserve(static_cast<std::int64_t>(bytes_));
        device_.synchronize();  // a copy may overtake what clears new memory
    }
    // Where the host writes an array, and where the device reads it; null for one without elements.
    template <class T>
    T* here(Place<T> place) {
        return place.size ? reinterpret_cast<T*>(static_cast<char*>(here_.get()) + place.offset) : nullptr;
    }
    template <class T>
    const T* there(Place<T> place) const {
        return place.size ? reinterpret_cast<const T*>(there_.data() + place.offset) : nullptr;
    }
    void send() { device_.send(there_.data(), here_.get(), bytes_); }

private:
    static constexpr std::size_t boundary = 256;  // of the device's own allocations

    Device& device_;
    Pinned here_;
    AlignedArray<char> there_;
    std::size_t bytes_ = 0;
};

}  // namespace resnetcore

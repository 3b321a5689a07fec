// A device: memory, an order of work, and kernels. One interface for the CPU and for what a separate module brings.
//
// Invariant: what a device allocated is touched by its own kernels and by the copies below alone, unless it `is_host`.
// Calls for one device from one thread take effect in their order, though later than they return; `download` and
// `synchronize` wait, and are where an error of work that went before is raised.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace resnetcore {

class Device {
public:
    virtual ~Device() = default;
    virtual const std::string& name() const = 0;  // "cpu", "cuda:0"
    virtual bool is_host() const = 0;

    // Zeroed, on a boundary of 256 bytes at least. Throws std::bad_alloc, and the device goes on. `release` may come
    // from any thread, whatever its current device.
    virtual void* allocate(std::size_t bytes) = 0;
    virtual void release(void* memory) noexcept = 0;
    // Work that was recorded before the last allocation may point to memory that another array has taken the place of.
    void* allocate_counted(std::size_t bytes) {
        allocations_.fetch_add(1, std::memory_order_relaxed);
        return allocate(bytes);
    }
    std::uint64_t allocations() const { return allocations_.load(std::memory_order_relaxed); }

    virtual void upload(void* to, const void* from, std::size_t bytes) = 0;    // `from` may be reused at once
    virtual void download(void* to, const void* from, std::size_t bytes) = 0;  // `to` is filled at return
    virtual void copy(void* to, const void* from, std::size_t bytes) = 0;      // within the device
    virtual void clear(void* memory, std::size_t bytes) = 0;                   // to zeros
    virtual void synchronize() = 0;

    // Copies that nobody waits for, between the device and pinned memory of the host's: memory that the device reads
    // and writes by itself, and so is left alone until then. `send` need not wait for what was asked for before, which
    // must not touch `to`; what is asked for after it does. `fetch` has its place in the order of work, and raises what
    // went wrong when the work before it was asked for.
    virtual void* allocate_pinned(std::size_t bytes);
    virtual void release_pinned(void* memory) noexcept;
    virtual void send(void* to, const void* from, std::size_t bytes) { upload(to, from, bytes); }
    virtual void fetch(void* to, const void* from, std::size_t bytes) { download(to, from, bytes); }
    // A mark is a place in the order of work. `wait_for` waits for what had been asked for when it was set, and no
    // more.
    virtual void* make_mark() { return nullptr; }
    virtual void set_mark(void* /*mark*/) {}
    virtual void wait_for(void* /*mark*/) {}
    virtual void discard_mark(void* /*mark*/) noexcept {}

    // Of a device whose memory other libraries have arrays in.
    virtual void gather(const GatherArgs& args);

    // The widest matrix that its kernels take.
    virtual std::int64_t max_columns() const { return INT64_MAX; }

    // From now on the calling thread's kernel calls and copies are this device's, until `restore`: see CurrentDevice.
    struct Before {
        int device = 0;
        void* context = nullptr;
    };
    virtual Before make_current() = 0;
    virtual void restore(const Before& /*before*/) noexcept {}

    // Which of its kernels the calling thread's calls take, where it has several ways: by the number of a name, until
    // they are told −1, its own choice; see UsedPath. −1: there is no such way.
    struct Path {
        std::string name;
        bool has_passed;  // its tests, on such a device: otherwise it is for those who name it
    };
    virtual std::vector<Path> paths() const { return {}; }
    virtual int path_number(const std::string& /*name*/) const { return -1; }
    virtual void use_path(int /*number*/) noexcept {}

    // Between the first two, kernel calls, `copy` and `clear` of the calling thread are kept instead of done; `play`
    // does them all, as often as it is called, from any thread. False, or null, where that does not succeed, and
    // nothing is kept.
    virtual bool can_record() const { return false; }
    virtual bool begin_recording() { return false; }
    virtual void* end_recording() { return nullptr; }
    virtual void play(void* /*recording*/) {}
    virtual void discard(void* /*recording*/) noexcept {}

    template <class T>
    const KernelTable<T>& kernels() const;
    // Not every device has kernels of bfloat16x2.
    bool has_bfloat16x2() const { return tables_.bf16x2 != nullptr; }

protected:
    struct Tables {
        const KernelTable<float>* f32 = nullptr;
        const KernelTable<double>* f64 = nullptr;
        const KernelTable<bfloat16>* bf16 = nullptr;
        const KernelTable<bfloat16x2>* bf16x2 = nullptr;
    } tables_;

private:
    std::atomic<std::uint64_t> allocations_{0};
};

template <>
inline const KernelTable<float>& Device::kernels() const {
    return *tables_.f32;
}
template <>
inline const KernelTable<double>& Device::kernels() const {
    return *tables_.f64;
}
template <>
inline const KernelTable<bfloat16>& Device::kernels() const {
    return *tables_.bf16;
}
template <>
inline const KernelTable<bfloat16x2>& Device::kernels() const {
    return *tables_.bf16x2;
}

// Around a piece of the calling thread's work on a device. After it the thread's device is the one of before, as other
// libraries on this thread have theirs by it, too.
class CurrentDevice {
public:
    explicit CurrentDevice(Device& device) : device_(device), before_(device.make_current()) {}
    ~CurrentDevice() { device_.restore(before_); }
    CurrentDevice(const CurrentDevice&) = delete;

private:
    Device& device_;
    const Device::Before before_;
};

// Around a piece of the calling thread's work on a device, by kernels that were chosen for it; −1: by its own choice.
class UsedPath {
public:
    UsedPath(Device& device, int number) : device_(device) { device_.use_path(number); }
    ~UsedPath() { device_.use_path(-1); }
    UsedPath(const UsedPath&) = delete;

private:
    Device& device_;
};

// The CPU this process runs on.
Device& host_device();

// "cpu", "cuda" (its first GPU) or "cuda:1". Throws ValueError for another name, and DeviceError with the reason where
// it cannot be had: no CUDA in this build, no driver, no GPU, none that this build has code for.
Device& find_device(const std::string& name);

}  // namespace resnetcore

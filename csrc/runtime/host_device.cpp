// The CPU as a device: memory on whole cache lines, kernels of the instruction set in use, and every call done when it
// returns. Large arrays are on huge pages where the system gives them to who asks, as a walk through the page tables
// costs more than a line from L3.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/select.h"
#include "runtime/device.h"

namespace resnetcore {
namespace {

class HostDevice final : public Device {
public:
    HostDevice() {
        const Isa& isa = current_isa();
        tables_ = {isa.f32, isa.f64, isa.bf16, isa.bf16x2};
    }
    const std::string& name() const override { return name_; }
    bool is_host() const override { return true; }

    void* allocate(std::size_t bytes) override {
        constexpr std::size_t line = 64, boundary = 256, huge_page = std::size_t{2} << 20;
        bytes = (bytes + line) / line * line;
        const std::size_t alignment = bytes < huge_page ? boundary : huge_page;
        void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        if (!memory) throw std::bad_alloc();
        if (alignment == huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
        return std::memset(memory, 0, bytes);
    }
    void release(void* memory) noexcept override { std::free(memory); }

    void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
    void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
    void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
    void clear(void* memory, std::size_t bytes) override { std::memset(memory, 0, bytes); }
    void synchronize() override {}
    Before make_current() override { return {}; }

private:
    const std::string name_ = "cpu";
};

}  // namespace

Device& host_device() {
    // Never destroyed: at the end of the process, arrays may still be released by threads that run.
    static Device& device = *new HostDevice;
    return device;
}

}  // namespace resnetcore

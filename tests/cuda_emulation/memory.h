// Device memory that the host cannot touch: pages without access, but while a kernel or a copy runs, and pages without
// access on both sides at all times.
#pragma once

#include <cstddef>
#include <vector>

namespace emulation {

// Of a device, zeroed; ends against its last page, up to what a boundary of 256 bytes leaves, which `release` finds
// unchanged or ends the process. Null where there is no memory: RESNETCORE_EMULATED_MEMORY is the size of all devices'
// in bytes.
void* allocate(std::size_t bytes, int device);
void release(void* memory);
// Within whose memory it is; −1 where it is none's.
int device_of(const void* memory);

// While one lives, device memory can be reached: all of it, or what the addresses lie in. Every array has pages of its
// own, so that all of it takes a while where there are many.
class Access {
public:
    Access();
    explicit Access(const std::vector<const void*>& addresses);
    ~Access();
    Access(const Access&) = delete;

private:
    const bool everywhere_;
    std::vector<void*> opened_;
};

}  // namespace emulation

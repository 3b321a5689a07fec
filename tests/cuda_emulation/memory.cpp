#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

namespace emulation {
namespace {

constexpr std::size_t boundary = 256;
constexpr unsigned char canary = 0xa5;

struct Allocation {
    char* pages = nullptr;  // those between the two without access
    std::size_t length = 0;
    char* begin = nullptr;
    std::size_t size = 0;
    int device = 0;
    int accesses = 0;  // to it alone

    void protect(int rights) const { mprotect(pages, length, rights); }
    char* end() const { return begin + size; }
};

struct Memory {
    std::mutex mutex;
    std::map<void*, Allocation> live;
    std::size_t used = 0;
    int accesses = 0;  // to all of it

    // The allocation that an address lies in, or null.
    Allocation* find(const void* address) {
        const auto after = live.upper_bound(const_cast<void*>(address));
        if (after == live.begin() || address >= std::prev(after)->second.end()) return nullptr;
        return &std::prev(after)->second;
    }
    // Of those that no other access has open.
    void protect(int rights) const {
        for (const auto& [begin, one] : live)
            if (one.accesses == 0) one.protect(rights);
    }
};
// Never destroyed: statics of others may hold device memory at exit.
Memory& memory() {
    static Memory& all = *new Memory;
    return all;
}

std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
std::size_t device_size() {
    const char* given = std::getenv("RESNETCORE_EMULATED_MEMORY");
    return given ? std::strtoull(given, nullptr, 10) : std::size_t{16} << 30;
}

}  // namespace

void* allocate(std::size_t bytes, int device) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (bytes > device_size() || all.used > device_size() - bytes) return nullptr;
    Allocation made;
    made.size = bytes;
    made.device = device;
    made.length = (bytes + page() - 1) / page() * page() + (bytes == 0 ? page() : 0);
    void* mapped = mmap(nullptr, made.length + 2 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    made.pages = static_cast<char*>(mapped) + page();
    made.begin = made.pages + (made.length - bytes) / boundary * boundary;
    made.protect(PROT_READ | PROT_WRITE);
    std::memset(made.pages, canary, made.length);
    std::memset(made.begin, 0, bytes);
    if (all.accesses == 0) made.protect(PROT_NONE);
    all.used += bytes;
    all.live[made.begin] = made;
    return made.begin;
}

void release(void* released) {
    if (!released) return;
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    const auto found = all.live.find(released);
    const char* problem = found == all.live.end() ? "memory is released that was not allocated" : nullptr;
    if (!problem) {
        const Allocation& gone = found->second;
        gone.protect(PROT_READ);
        for (const char* p = gone.pages; p < gone.pages + gone.length; ++p)
            if ((p < gone.begin || p >= gone.end()) && static_cast<unsigned char>(*p) != canary)
                problem = "something was written beside an allocation";
    }
    if (problem) {
        std::fprintf(stderr, "CUDA emulation: %s\n", problem);
        std::abort();
    }
    all.used -= found->second.size;
    munmap(found->second.pages - page(), found->second.length + 2 * page());
    all.live.erase(found);
}

int device_of(const void* address) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    const Allocation* found = all.find(address);
    return found ? found->device : -1;
}

Access::Access() : everywhere_(true) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (all.accesses++ == 0) all.protect(PROT_READ | PROT_WRITE);
}

Access::Access(const std::vector<const void*>& addresses) : everywhere_(false) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    for (const void* address : addresses)
        if (Allocation* one = all.find(address)) {
            if (one->accesses++ == 0 && all.accesses == 0) one->protect(PROT_READ | PROT_WRITE);
            opened_.push_back(one->begin);
        }
}

Access::~Access() {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (everywhere_ && --all.accesses == 0) all.protect(PROT_NONE);
    for (void* begin : opened_) {
        const auto found = all.live.find(begin);  // released meanwhile, perhaps
        if (found != all.live.end() && --found->second.accesses == 0 && all.accesses == 0)
            found->second.protect(PROT_NONE);
    }
}

}  // namespace emulation

#include "kernels/tile_permission.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "kernels/x86_features.h"

namespace resnetcore {
namespace {

// Linux, Documentation/arch/x86/xstate.rst; older headers lack the names.
constexpr long get_permitted = 0x1022, request_permission = 0x1023;  // ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM
constexpr int tile_configuration = 17, tile_data = 18;               // components of the state
constexpr std::uint64_t both = std::uint64_t{1} << tile_configuration | std::uint64_t{1} << tile_data;

}  // namespace

bool has_tiles() {
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & amx_bf16) && (d & amx_tile);
}

bool may_use_tiles() {
    if ((saved_components() & both) != both) return false;
    if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return false;
    // A sandbox may answer that all is well and do nothing.
    std::uint64_t permitted = 0;
    return syscall(SYS_arch_prctl, get_permitted, &permitted) == 0 && (permitted & both) == both;
}

}  // namespace resnetcore

#else

namespace resnetcore {

bool has_tiles() { return false; }
bool may_use_tiles() { return false; }

}  // namespace resnetcore

#endif

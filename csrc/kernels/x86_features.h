// Which instructions of x86-64 may be used: those that the CPU has, and whose registers the operating system saves.
// Asked of the CPU itself: __builtin_cpu_supports is answered by the compiler's run-time library, which not every
// toolchain has.
#pragma once

#include <cstdint>

namespace resnetcore {

#if defined(__x86_64__)

// XCR0: the components of a thread's state that the operating system saves, a bit each; 0 where it saves none.
std::uint64_t saved_components();

bool has_avx2();         // and FMA
bool has_avx512();       // F, BW, DQ and VL
bool has_avx512_bf16();  // and these

#endif

}  // namespace resnetcore

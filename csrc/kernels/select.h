// The one place where an instruction set is chosen: by the CPU, or by RESNETCORE_ISA, once per process.
#pragma once

#include <string>
#include <vector>

#include "kernels/ops.h"

namespace resnetcore {

struct Isa {
    std::string name;  // "baseline", "avx2", "avx512", "avx512_bf16", "avx512_amx", "neon"
    bool compiled = false;
    bool supported = false;  // by this CPU and operating system
    const KernelTable<float>* f32 = nullptr;
    const KernelTable<double>* f64 = nullptr;
    const KernelTable<bfloat16>* bf16 = nullptr;
    const KernelTable<bfloat16x2>* bf16x2 = nullptr;  // null without instructions for bfloat16
    bool multiplies_tiles = false;                    // so fast that three products in bfloat16 beat one in float32
    const char* obstacle = "";                        // why a CPU that has it may not run it, else empty
};

// All instruction sets this library knows, slowest first.
const std::vector<Isa>& known_isas();

// The one in use. Throws ValueError, naming the choices, where RESNETCORE_ISA names none or one that cannot run here.
const Isa& current_isa();

// What the products of float32 networks are made of: floats, bfloat16x2 or bfloat16.
enum class MatmulPrecision { highest, high, medium };
const char* matmul_precision_name(MatmulPrecision precision);
MatmulPrecision find_matmul_precision(const std::string& name);  // throws ValueError
// The one asked for, or `highest` where this instruction set has nothing faster for it. One that RESNETCORE_ISA names
// is used for all it has.
MatmulPrecision available(MatmulPrecision asked);

template <class T>
const KernelTable<T>& kernels();
template <>
inline const KernelTable<float>& kernels<float>() {
    return *current_isa().f32;
}
template <>
inline const KernelTable<double>& kernels<double>() {
    return *current_isa().f64;
}
template <>
inline const KernelTable<bfloat16>& kernels<bfloat16>() {
    return *current_isa().bf16;
}
template <>
inline const KernelTable<bfloat16x2>& kernels<bfloat16x2>() {
    return *current_isa().bf16x2;
}

}  // namespace resnetcore

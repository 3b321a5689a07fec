#include "kernels/select.h"

#include <cstdlib>

#include "base/error.h"
#include "kernels/tile_permission.h"
#include "kernels/x86_features.h"

namespace resnetcore {

// Getters of each instruction set (kernels/cpu/isa.h); of one that this build lacks they give nothing.
#define RC_DECLARE_ISA(isa)                  \
    namespace isa {                          \
    const KernelTable<float>* f32();         \
    const KernelTable<double>* f64();        \
    const KernelTable<bfloat16>* bf16();     \
    const KernelTable<bfloat16x2>* bf16x2(); \
    }
RC_DECLARE_ISA(baseline)
RC_DECLARE_ISA(avx2)
RC_DECLARE_ISA(avx512)
RC_DECLARE_ISA(avx512_bf16)  // bf16 and bf16x2 alone, and alone they have the second
RC_DECLARE_ISA(avx512_amx)
RC_DECLARE_ISA(neon)
#undef RC_DECLARE_ISA

namespace {

std::vector<Isa> list_isas() {
    std::vector<Isa> isas;
#if defined(__x86_64__)
    const bool has_floats = avx512::f32() != nullptr;  // all three sets with 64-byte vectors have the first one's
    isas.push_back({"baseline", true, true, baseline::f32(), baseline::f64(), baseline::bf16()});
    isas.push_back({"avx2", avx2::bf16() != nullptr, has_avx2(), avx2::f32(), avx2::f64(), avx2::bf16()});
    isas.push_back({"avx512", has_floats, has_avx512(), avx512::f32(), avx512::f64(), avx512::bf16()});
    isas.push_back({"avx512_bf16", has_floats && avx512_bf16::bf16(), has_avx512_bf16(), avx512::f32(), avx512::f64(),
                    avx512_bf16::bf16(), avx512_bf16::bf16x2()});
    const bool amx_permitted = has_avx512_bf16() && has_tiles() && may_use_tiles();
    isas.push_back({"avx512_amx", has_floats && avx512_amx::bf16(), amx_permitted, avx512::f32(), avx512::f64(),
                    avx512_amx::bf16(), avx512_amx::bf16x2(), true,
                    has_tiles() && !amx_permitted ? "not permitted by the operating system" : ""});
    isas.push_back({"neon", false, false, nullptr, nullptr, nullptr});
#elif defined(__aarch64__)
    isas.push_back({"neon", true, true, neon::f32(), neon::f64(), neon::bf16()});
#else
    isas.push_back({"baseline", true, true, baseline::f32(), baseline::f64(), baseline::bf16()});
#endif
    return isas;
}

std::string choices() {
    std::string names;
    for (const Isa& isa : known_isas())
        if (isa.compiled && isa.supported) names += (names.empty() ? "" : ", ") + isa.name;
    return names;
}

// What RESNETCORE_ISA names, or null.
const char* asked_for() {
    const char* name = std::getenv("RESNETCORE_ISA");
    return name && *name ? name : nullptr;
}

const Isa& choose() {
    const std::vector<Isa>& all = known_isas();
    if (const char* forced = asked_for()) {
        std::string why;
        for (const Isa& isa : all) {
            if (isa.name != forced) continue;
            if (isa.compiled && isa.supported) return isa;
            if (*isa.obstacle) why = std::string(" (") + isa.obstacle + ")";
        }
        throw ValueError("RESNETCORE_ISA=" + std::string(forced) + " cannot run here" + why + "; choose one of " +
                         choices());
    }
    const Isa* best = &all.front();  // compiled and supported everywhere
    for (const Isa& isa : all)
        if (isa.compiled && isa.supported) best = &isa;
    return *best;
}

}  // namespace

// Never destroyed: a framework's threads may still be calling when the process ends.
const std::vector<Isa>& known_isas() {
    static const std::vector<Isa>& isas = *new const std::vector<Isa>(list_isas());
    return isas;
}

const Isa& current_isa() {
    static const Isa& isa = choose();
    return isa;
}

const char* matmul_precision_name(MatmulPrecision precision) {
    constexpr const char* names[] = {"highest", "high", "medium"};
    return names[static_cast<int>(precision)];
}

MatmulPrecision find_matmul_precision(const std::string& name) {
    for (const auto precision : {MatmulPrecision::highest, MatmulPrecision::high, MatmulPrecision::medium})
        if (name == matmul_precision_name(precision)) return precision;
    throw ValueError("matmul_precision must be \"highest\", \"high\" or \"medium\", got \"" + name + "\"");
}

MatmulPrecision available(MatmulPrecision asked) {
    static const bool by_name = asked_for() != nullptr;
    const Isa& isa = current_isa();
    if (!isa.bf16x2) return MatmulPrecision::highest;
    const bool has_high = isa.multiplies_tiles || by_name;
    return asked == MatmulPrecision::high && !has_high ? MatmulPrecision::highest : asked;
}

}  // namespace resnetcore

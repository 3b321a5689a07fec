// The elementary functions that formulas are written in, for scalars. SIMD vectors overload the same names
// (kernels/cpu/vector_functions.h) beside their type, so that a formula templated on T runs on both.
#pragma once

#include <cmath>
#include <type_traits>

// Always inlined: a shared inline function compiled for AVX-512 could otherwise be the copy the linker keeps for all.
#if defined(__CUDACC__)
#define RC_HD __host__ __device__ __forceinline__
#else
#define RC_HD __attribute__((always_inline)) inline
#endif

namespace resnetcore {

template <class T>
RC_HD T select(bool condition, T yes, T no) {
    return condition ? yes : no;
}

RC_HD bool is_nan(double x) { return x != x; }

// max(0, z); a NaN stays one.
template <class T>
RC_HD T positive_part(T z) {
    return select(z <= T(0), T(0), z);
}

// a·b + c, fused where the instruction set can. Nothing else is ever fused (csrc/CMakeLists.txt): left to the compiler,
// two copies of one loop could round differently.
#if defined(__CUDA_ARCH__)
RC_HD float multiply_add(float a, float b, float c) { return ::fmaf(a, b, c); }
RC_HD double multiply_add(double a, double b, double c) { return ::fma(a, b, c); }
#else
RC_HD float multiply_add(float a, float b, float c) { return a * b + c; }
RC_HD double multiply_add(double a, double b, double c) { return a * b + c; }
#endif

RC_HD float exp(float x) { return ::expf(x); }
RC_HD double exp(double x) { return ::exp(x); }
RC_HD float expm1(float x) { return ::expm1f(x); }
RC_HD double expm1(double x) { return ::expm1(x); }
RC_HD float log1p(float x) { return ::log1pf(x); }
RC_HD double log1p(double x) { return ::log1p(x); }
RC_HD float log(float x) { return ::logf(x); }
RC_HD double log(double x) { return ::log(x); }
RC_HD float tanh(float x) { return ::tanhf(x); }
RC_HD double tanh(double x) { return ::tanh(x); }
RC_HD float erf(float x) { return ::erff(x); }
RC_HD double erf(double x) { return ::erf(x); }
RC_HD float sqrt(float x) { return ::sqrtf(x); }
RC_HD double sqrt(double x) { return ::sqrt(x); }

// Types in a fixed order: a name, an index and an instantiation all come from one list.
template <class... Types>
struct TypeList {
    static constexpr int size = sizeof...(Types);
};

template <class Type, class... Types>
constexpr int index_of(TypeList<Types...>) {
    int i = 0, index = -1;
    (void)((std::is_same<Type, Types>::value ? (index = i, true) : (++i, false)) || ...);
    return index;
}

// Calls visit(Type{}) for the type at `index`.
template <class Visit, class... Types>
RC_HD void visit_type(int index, TypeList<Types...>, Visit&& visit) {
    int i = 0;
    (void)((i++ == index && (visit(Types{}), true)) || ...);
}

}  // namespace resnetcore

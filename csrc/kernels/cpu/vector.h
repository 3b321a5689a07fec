// A SIMD vector of floats or doubles, over the compiler's vector extensions. Included inside the namespace of one
// instruction set (see isa.h): the type, and so every function templated on it, is private to that set.

// The first n of less than 2·piece elements, in pieces of halved sizes: no loop over n, and no call.
template <int piece, class Element>
RC_HD void copy_first(Element* to, const Element* from, int n) {
    if (n & piece) {
        std::memcpy(to, from, piece * sizeof *to);
        to += piece, from += piece;
    }
    if constexpr (piece > 1) copy_first<piece / 2>(to, from, n);
}

#if defined(__AVX512BW__)
// The first lanes of a vector, as a mask, which may be made once for many rows. Other lanes read as zero; nothing
// beyond them is touched.
struct FirstLanes {
    std::uint32_t mask;

    RC_HD explicit FirstLanes(int n) : mask(static_cast<std::uint32_t>((std::uint64_t{1} << n) - 1)) {}
};
#else
struct FirstLanes {
    int n;

    RC_HD explicit FirstLanes(int n) : n(n) {}
};
#endif

template <class T>
struct Vec {
    static constexpr int lanes = RC_VECTOR_BYTES / static_cast<int>(sizeof(T));
    typedef T Native __attribute__((vector_size(RC_VECTOR_BYTES)));
    typedef T Unaligned __attribute__((vector_size(RC_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    Native v;

    RC_HD Vec() : v{} {}
    RC_HD Vec(Native native) : v(native) {}
    // x − 0, not 0 + x: the compiler may fold the first into a plain broadcast, as it keeps the sign of a zero.
    template <class Number>
    RC_HD explicit Vec(Number x) : v(static_cast<T>(x) - Native{}) {}

    static RC_HD Vec load(const T* p) { return Vec(*reinterpret_cast<const Unaligned*>(p)); }
    RC_HD void store(T* p) const { *reinterpret_cast<Unaligned*>(p) = v; }
#if defined(__AVX512BW__)
    static RC_HD Vec load(const T* p, FirstLanes some) {
        if constexpr (sizeof(T) == 4)
            return Vec((Native)_mm512_maskz_loadu_ps(static_cast<__mmask16>(some.mask), p));
        else
            return Vec((Native)_mm512_maskz_loadu_pd(static_cast<__mmask8>(some.mask), p));
    }
    RC_HD void store(T* p, FirstLanes some) const {
        if constexpr (sizeof(T) == 4)
            _mm512_mask_storeu_ps(p, static_cast<__mmask16>(some.mask), (__m512)v);
        else
            _mm512_mask_storeu_pd(p, static_cast<__mmask8>(some.mask), (__m512d)v);
    }
#else
    static RC_HD Vec load(const T* p, FirstLanes some) { return load(p, some.n); }
    RC_HD void store(T* p, FirstLanes some) const { store(p, some.n); }
#endif
    // The first n lanes, 0 ≤ n ≤ lanes; nothing beyond them is touched. Other lanes read as zero.
    static RC_HD Vec load(const T* p, int n) {
        if (n <= 0) return Vec();
        if (n >= lanes) return load(p);
#if defined(__AVX512BW__)
        return load(p, FirstLanes(n));
#elif defined(__AVX2__)
        if constexpr (sizeof(T) == 4)
            return Vec((Native)_mm256_maskload_ps(
                p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))));
        if constexpr (sizeof(T) == 8)
            return Vec((Native)_mm256_maskload_pd(
                p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))));
#endif
        Vec r;
        for (int i = 0; i < lanes; ++i)
            if (i < n) r.v[i] = p[i];
        return r;
    }
    RC_HD void store(T* p, int n) const {
        if (n <= 0) return;
        if (n >= lanes) return store(p);
#if defined(__AVX512BW__)
        store(p, FirstLanes(n));
#else
        alignas(RC_VECTOR_BYTES) T all[lanes];
        store(all);
        copy_first<lanes / 2>(p, all, n);
#endif
    }
};

// Of vectors that hold what is computed with elements stored as T.
template <class T>
constexpr int lanes_of = Vec<Compute<T>>::lanes;

// clang-format off: a table of operators
template <class T> RC_HD Vec<T> operator+(Vec<T> a, Vec<T> b) { return a.v + b.v; }
template <class T> RC_HD Vec<T> operator-(Vec<T> a, Vec<T> b) { return a.v - b.v; }
template <class T> RC_HD Vec<T> operator*(Vec<T> a, Vec<T> b) { return a.v * b.v; }
template <class T> RC_HD Vec<T> operator/(Vec<T> a, Vec<T> b) { return a.v / b.v; }
template <class T> RC_HD Vec<T> operator-(Vec<T> a) { return -a.v; }

template <class T> RC_HD auto operator<=(Vec<T> a, Vec<T> b) { return a.v <= b.v; }
template <class T> RC_HD auto operator<(Vec<T> a, Vec<T> b) { return a.v < b.v; }
template <class T> RC_HD auto operator>(Vec<T> a, Vec<T> b) { return a.v > b.v; }
template <class T> RC_HD auto operator!=(Vec<T> a, Vec<T> b) { return a.v != b.v; }
template <class Mask, class T> RC_HD Vec<T> select(Mask mask, Vec<T> yes, Vec<T> no) { return mask ? yes.v : no.v; }
// clang-format on

RC_HD Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
    return (Vec<float>::Native)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v);
#elif defined(__FMA__)
    return (Vec<float>::Native)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v);
#elif defined(__aarch64__)
    return (Vec<float>::Native)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v);
#else
    return a * b + c;
#endif
}
RC_HD Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
    return (Vec<double>::Native)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v);
#elif defined(__FMA__)
    return (Vec<double>::Native)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v);
#elif defined(__aarch64__)
    return (Vec<double>::Native)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v);
#else
    return a * b + c;
#endif
}

#if defined(__AVX2__)
// An instruction instead of two. Of a NaN, and of two zeros, it gives its second operand.
#if defined(__AVX512F__)
RC_HD Vec<float> positive_part(Vec<float> z) { return (Vec<float>::Native)_mm512_max_ps(_mm512_setzero_ps(), z.v); }
RC_HD Vec<double> positive_part(Vec<double> z) { return (Vec<double>::Native)_mm512_max_pd(_mm512_setzero_pd(), z.v); }
#else
RC_HD Vec<float> positive_part(Vec<float> z) { return (Vec<float>::Native)_mm256_max_ps(_mm256_setzero_ps(), z.v); }
RC_HD Vec<double> positive_part(Vec<double> z) { return (Vec<double>::Native)_mm256_max_pd(_mm256_setzero_pd(), z.v); }
#endif
#endif

// Lanes i of a and b where `i & step` is 0, side by side, or (`high`) those where it is not.
template <int step, bool high, class V, int... i>
RC_HD V exchange(V a, V b, std::integer_sequence<int, i...>) {
    constexpr int lanes = sizeof...(i);
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (i & step ? lanes + i - (high ? 0 : step) : i + (high ? step : 0))...);
#else
    typedef decltype(a < a) Index;
    return __builtin_shuffle(a, b, Index{(i & step ? lanes + i - (high ? 0 : step) : i + (high ? step : 0))...});
#endif
}

// Transposes a block of lanes × lanes in registers by log2(lanes) rounds of pairwise exchanges.
template <class T, int step = 1>
RC_HD void transpose(Vec<T> (&rows)[Vec<T>::lanes]) {
    constexpr int lanes = Vec<T>::lanes;
    if constexpr (step < lanes) {
        constexpr auto all = std::make_integer_sequence<int, lanes>();
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
            if (i & step) continue;
            const auto a = rows[i].v, b = rows[i + step].v;
            rows[i].v = exchange<step, false>(a, b, all);
            rows[i + step].v = exchange<step, true>(a, b, all);
        }
        transpose<T, 2 * step>(rows);
    }
}

// What is stored as T, as vectors of what is computed with: the first n lanes, as Vec's own load and store.
template <class T>
RC_HD Vec<T> read(const T* p) {
    return Vec<T>::load(p);
}
template <class T>
RC_HD Vec<T> read(const T* p, int n) {
    return Vec<T>::load(p, n);
}
template <class T>
RC_HD Vec<T> read(const T* p, FirstLanes some) {
    return Vec<T>::load(p, some);
}
template <class T>
RC_HD void write(Vec<T> v, T* p) {
    v.store(p);
}
template <class T>
RC_HD void write(Vec<T> v, T* p, int n) {
    v.store(p, n);
}
template <class T>
RC_HD void write(Vec<T> v, T* p, FirstLanes some) {
    v.store(p, some);
}

// The elementary functions of math/functions.h on vectors. Included inside the namespace of one instruction set.
//
// float: branch-free polynomials; activations made of them are within 4 ulp (gelu: 5e-7 absolute). double: exp by one,
// within 2 ulp, as losses take it; else the C library, lane by lane (float64 is the checking precision).

#define RC_BY_LANE(function)                                                                \
    RC_HD Vec<double> function(Vec<double> x) {                                             \
        Vec<double> r;                                                                      \
        for (int i = 0; i < Vec<double>::lanes; ++i) r.v[i] = resnetcore::function(x.v[i]); \
        return r;                                                                           \
    }
RC_BY_LANE(expm1)
RC_BY_LANE(log1p)
RC_BY_LANE(tanh)
RC_BY_LANE(erf)
#undef RC_BY_LANE

template <class T>
RC_HD Vec<T> sqrt(Vec<T> x) {
    Vec<T> r;
    for (int i = 0; i < Vec<T>::lanes; ++i) r.v[i] = resnetcore::sqrt(x.v[i]);
    return r;
}

template <class T, int N>
RC_HD Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {  // c[0] + c[1] x + …
    Vec<T> sum(c[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; --i) sum = multiply_add(sum, x, Vec<T>(c[i]));
    return sum;
}

// x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts; Taylor up to r¹³ / 13!, and 2ⁿ in two factors, as n reaches
// beyond the exponents of normal numbers at both ends.
RC_HD Vec<double> exp(Vec<double> x) {
    using V = Vec<double>;
    typedef std::int64_t Long __attribute__((vector_size(RC_VECTOR_BYTES)));
    const V bounded = select(x > V(710.0), V(710.0), select(x < V(-746.0), V(-746.0), select(x != x, V(0.0), x)));
    const V shifter(6755399441055744.0);  // 1.5·2⁵²: adding it rounds to an integer
    const V rounded = multiply_add(bounded, V(1.4426950408889634), shifter);
    const Long n = (Long)rounded.v - (Long)shifter.v, half = n >> 1, rest = n - half;
    const V k = rounded - shifter;
    const V r = multiply_add(k, V(-1.90821492927058770e-10), multiply_add(k, V(-0.693147180369123816), bounded));
    const double c[] = {
        1.0,        1.0,         0.5,          1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const V y = polynomial(r, c) * V((V::Native)((half + 1023) << 52)) * V((V::Native)((rest + 1023) << 52));
    return select(x != x, x, y);
}

typedef std::int32_t Int __attribute__((vector_size(RC_VECTOR_BYTES)));

RC_HD Vec<float> from_bits(Int bits) { return Vec<float>((Vec<float>::Native)bits); }
RC_HD Int to_bits(Vec<float> x) { return (Int)x.v; }
RC_HD Vec<float> abs(Vec<float> x) { return from_bits(to_bits(x) & 0x7fffffff); }
RC_HD Vec<float> with_sign_of(Vec<float> x, Vec<float> sign) {
    return from_bits((to_bits(x) & 0x7fffffff) | (to_bits(sign) & static_cast<std::int32_t>(0x80000000u)));
}
RC_HD Vec<float> power_of_two(Int n) { return from_bits((n + 127) << 23); }

// x = n·ln 2 + r with |r| ≤ ln 2 / 2; ln 2 in two parts so that r is exact to the last bit.
RC_HD Vec<float> reduce(Vec<float> x, Int& n) {
    const Vec<float> shifter(12582912.0f);  // 1.5·2²³: adding it rounds to an integer
    const Vec<float> rounded = multiply_add(x, Vec<float>(1.44269504088896341f), shifter);
    n = to_bits(rounded) - to_bits(shifter);
    const Vec<float> k = rounded - shifter;
    return multiply_add(k, Vec<float>(2.12194440e-4f), multiply_add(k, Vec<float>(-0.693359375f), x));
}

RC_HD Vec<float> exp(Vec<float> x) {
    const Vec<float> bounded =
        select(x > Vec<float>(89.0f), Vec<float>(89.0f), select(x < Vec<float>(-104.0f), Vec<float>(-104.0f), x));
    Int n;
    const Vec<float> r = reduce(select(x != x, Vec<float>(0.0f), bounded), n);
    const float c[] = {1.0f, 1.0f, 0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    // 2ⁿ in two factors: n reaches beyond the exponents of normal numbers at both ends.
    const Int half = n >> 1;
    const Vec<float> y = polynomial(r, c) * power_of_two(half) * power_of_two(n - half);
    return select(x != x, x, y);
}

RC_HD Vec<float> expm1(Vec<float> x) {
    const float c[] = {0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040, 1.0f / 40320, 1.0f / 362880};
    const Vec<float> near = multiply_add(x * x, polynomial(x, c), x);
    return select(abs(x) < Vec<float>(0.6f), near, exp(x) - Vec<float>(1.0f));
}

RC_HD Vec<float> tanh(Vec<float> x) {  // (e²ˣ − 1) / (e²ˣ + 1), saturated where it is 1 to the last bit
    const Vec<float> size = abs(x);
    const Vec<float> e = expm1(select(size > Vec<float>(10.0f), Vec<float>(20.0f), size + size));
    return select(x != x, x, with_sign_of(e / (e + Vec<float>(2.0f)), x));
}

// log of a positive number, by atanh: log m = 2 s + 2 s³/3 + …, s = (m − 1) / (m + 1), m in [√½, √2).
RC_HD Vec<float> log_positive(Vec<float> x) {
    const Int bits = to_bits(x), e = (bits - 0x3f3504f3) >> 23;
    const Vec<float> m = from_bits(bits - (e << 23)), k(__builtin_convertvector(e, Vec<float>::Native));
    const Vec<float> s = (m - Vec<float>(1.0f)) / (m + Vec<float>(1.0f)), s2 = s * s;
    const float c[] = {2.0f / 3, 2.0f / 5, 2.0f / 7, 2.0f / 9, 2.0f / 11};
    const Vec<float> small = multiply_add(s * s2, polynomial(s2, c), s + s);
    return multiply_add(k, Vec<float>(0.693359375f), multiply_add(k, Vec<float>(-2.12194440e-4f), small));
}

// For x ≥ 0: log(u)·x / (u − 1) with u = 1 + x cancels the rounding of u (Goldberg 1991, theorem 4).
RC_HD Vec<float> log1p(Vec<float> x) {
    const Vec<float> u = x + Vec<float>(1.0f), d = u - Vec<float>(1.0f);
    const Vec<float> y = log_positive(u) * (x / select(d <= Vec<float>(0.0f), Vec<float>(1.0f), d));
    const Vec<float> infinity(__builtin_inff());
    return select(x != x, x, select(x > Vec<float>(3e38f), infinity, select(d <= Vec<float>(0.0f), x, y)));
}

// Taylor below 1; above, erfc(x) = t·exp(−x² + P(t)), t = 1 / (1 + x / 2), relative error 1.2e-7 (Press et al.,
// Numerical Recipes, section 6.2).
RC_HD Vec<float> erf(Vec<float> x) {
    const Vec<float> size = abs(x), x2 = x * x;
    const float near[] = {1.1283791671f,  -0.3761263890f, 0.1128379167f, -0.0268661706f, 0.0052239776f, -0.00085483270f,
                          0.00012055333f, -1.4925650e-5f, 1.6462114e-6f, -1.6365844e-7f, 1.4807193e-8f};
    const float far[] = {-1.26551223f, 1.00002368f,  0.37409196f, 0.09678418f,  -0.18628806f,
                         0.27886807f,  -1.13520398f, 1.48851587f, -0.82215223f, 0.17087277f};
    const Vec<float> t = Vec<float>(1.0f) / (Vec<float>(1.0f) + Vec<float>(0.5f) * size);
    const Vec<float> tail = Vec<float>(1.0f) - t * exp(polynomial(t, far) - x2);
    const Vec<float> y = select(size < Vec<float>(1.0f), x * polynomial(x2, near), with_sign_of(tail, x));
    return select(x != x, x, y);
}

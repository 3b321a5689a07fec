// The largest magnitude among rows. Magnitudes compare as integers do, and so a NaN is the largest of all: no
// comparison of floats would keep it. Included inside an ISA's namespace.

// Numbers as they are stored, in integers of their own size; a bfloat16x2 as the float that it stands for.
template <class T>
struct StoredNumbers {
    using Number = std::conditional_t<std::is_same<T, bfloat16x2>::value, float, T>;
    using Bits = std::conditional_t<sizeof(Number) == 8, std::int64_t,
                                    std::conditional_t<sizeof(Number) == 4, std::int32_t, std::int16_t>>;
    typedef Bits Vector __attribute__((vector_size(RC_VECTOR_BYTES)));
    typedef Bits Unaligned __attribute__((vector_size(RC_VECTOR_BYTES), aligned(sizeof(Bits)), may_alias));
    static constexpr std::int64_t lanes = RC_VECTOR_BYTES / sizeof(Bits);
    static constexpr Bits without_sign = std::numeric_limits<Bits>::max();

    static RC_HD Vector magnitudes(const T* p) {
        if constexpr (std::is_same<T, Number>::value)
            return *reinterpret_cast<const Unaligned*>(p) & without_sign;
        else
            return (Vector)read(p).v & without_sign;
    }
    static RC_HD Bits magnitude(T x) {
        Bits bits;
        if constexpr (std::is_same<T, Number>::value) {
            std::memcpy(&bits, &x, sizeof bits);
        } else {
            const Number number = to_float(x);
            std::memcpy(&bits, &number, sizeof bits);
        }
        return bits & without_sign;
    }
    static RC_HD double value(Bits bits) {
        Number number;
        std::memcpy(&number, &bits, sizeof number);
        if constexpr (std::is_same<Number, bfloat16>::value)
            return to_float(number);
        else
            return number;
    }
};

template <class T>
void largest(const LargestArgs<T>& args) {
    using Stored = StoredNumbers<T>;
    using Vector = typename Stored::Vector;
    constexpr std::int64_t lanes = Stored::lanes;
    // Variables, no array: that would lie in memory, and each maximum wait for the last to come back from there.
    Vector even = {}, odd = {};
    typename Stored::Bits result = 0;
    auto take = [](auto& most, auto magnitude) { most = magnitude > most ? magnitude : most; };
    for (std::int64_t i = 0; i < args.rows; ++i) {
        const T* row = args.x.data + i * args.x.stride;
        if (args.columns < lanes) {
            for (std::int64_t j = 0; j < args.columns; ++j) take(result, Stored::magnitude(row[j]));
            continue;
        }
        std::int64_t j = 0;
        for (; j + 2 * lanes <= args.columns; j += 2 * lanes) {
            take(even, Stored::magnitudes(row + j));
            take(odd, Stored::magnitudes(row + j + lanes));
        }
        // What is left are two vectors at the most, the last of which may begin in what was taken already.
        if (j + lanes <= args.columns) take(even, Stored::magnitudes(row + j));
        if (j < args.columns) take(odd, Stored::magnitudes(row + args.columns - lanes));
    }
    for (std::int64_t i = 0; i < lanes; ++i) take(result, even[i]), take(result, odd[i]);
    *args.into = larger(*args.into, Stored::value(result));
}

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

    static RC_HD Vector magnitudes(const T* p) { return *reinterpret_cast<const Unaligned*>(p) & without_sign; }
    static RC_HD Vector magnitudes(Vec<Compute<T>> numbers) { return (Vector)numbers.v & without_sign; }
    static RC_HD Bits magnitude(T x) {
        Bits bits;
        std::memcpy(&bits, &x, sizeof bits);
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

// The largest magnitude so far. Variables, no array: that would lie in memory, and each maximum wait for the last to
// come back from there.
template <class T>
class LargestSoFar {
public:
    RC_HD void take(const T* row, std::int64_t columns) {
        if constexpr (std::is_same<T, bfloat16x2>::value) {
            std::int64_t j = 0;
            for (; j + 2 * lanes <= columns; j += 2 * lanes) {
                const Both<float> numbers = read_both(row + j);
                larger(even_, Stored::magnitudes(numbers.low));
                larger(odd_, Stored::magnitudes(numbers.high));
            }
            for (; j < columns; j += lanes)
                larger(even_,
                       Stored::magnitudes(read(row + j, static_cast<int>(columns - j < lanes ? columns - j : lanes))));
            return;
        }
        if (columns < lanes) {
#if defined(__AVX512BW__)
            if constexpr (sizeof(typename Stored::Bits) == 2) {
                const auto there = static_cast<__mmask32>((1u << columns) - 1);
                larger(even_, (typename Stored::Vector)_mm512_maskz_loadu_epi16(there, row) & Stored::without_sign);
                return;
            }
#endif
            for (std::int64_t j = 0; j < columns; ++j) larger(rest_, Stored::magnitude(row[j]));
            return;
        }
        std::int64_t j = 0;
        for (; j + 2 * lanes <= columns; j += 2 * lanes) {
            larger(even_, Stored::magnitudes(row + j));
            larger(odd_, Stored::magnitudes(row + j + lanes));
        }
        // What is left are two vectors at the most, the last of which may begin in what was taken already.
        if (j + lanes <= columns) larger(even_, Stored::magnitudes(row + j));
        if (j < columns && j + lanes != columns) larger(odd_, Stored::magnitudes(row + columns - lanes));
    }
    RC_HD void into(double* largest) const {
        typename Stored::Bits most = rest_;
        for (std::int64_t i = 0; i < lanes; ++i) larger(most, even_[i]), larger(most, odd_[i]);
        *largest = resnetcore::larger(*largest, Stored::value(most));
    }

private:
    using Stored = StoredNumbers<T>;
    static constexpr std::int64_t lanes = Stored::lanes;
    template <class Magnitude>
    static RC_HD void larger(Magnitude& most, Magnitude magnitude) {
        most = magnitude > most ? magnitude : most;
    }

    typename Stored::Vector even_ = {}, odd_ = {};
    typename Stored::Bits rest_ = 0;
};

template <class T>
void largest(const LargestArgs<T>& args) {
    LargestSoFar<T> found;
    for (std::int64_t i = 0; i < args.rows; ++i) found.take(args.x.data + i * args.x.stride, args.columns);
    found.into(args.into);
}

// For the kernels of a table that keeps the largest itself, where its products find it beside other work.
#if defined(RC_TILE_UNIT)
constexpr bool keeps_largest = true;
#else
constexpr bool keeps_largest = false;
#endif
template <class T>
RC_HD void keep_largest(std::int64_t rows, std::int64_t columns, MutableRows<T> out, double* into) {
    if (keeps_largest && into && out.data) largest<T>({rows, columns, out, into});
}

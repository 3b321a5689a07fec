// The largest magnitude among rows. Magnitudes compare as integers do, and so a NaN is the largest of all: no
// comparison of floats would keep it. Included inside an ISA's namespace.

template <class T>
void largest(const LargestArgs<T>& args) {
    using Bits = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
    typedef Bits Magnitudes __attribute__((vector_size(RC_VECTOR_BYTES)));
    constexpr int lanes = lanes_of<T>;
    constexpr Bits without_sign = std::numeric_limits<Bits>::max();
    // Variables, no array: that would lie in memory, and each maximum wait for the last to come back from there.
    Magnitudes even = {}, odd = {}, rest = {};
    auto take = [&](Magnitudes& most, Vec<Compute<T>> v) {
        const Magnitudes magnitude = (Magnitudes)v.v & without_sign;
        most = magnitude > most ? magnitude : most;
    };
    for (std::int64_t i = 0; i < args.rows; ++i) {
        const T* row = args.x.data + i * args.x.stride;
        std::int64_t j = 0;
        for (; j + 2 * lanes <= args.columns; j += 2 * lanes) {
            take(even, read(row + j));
            take(odd, read(row + j + lanes));
        }
        for (; j < args.columns; j += lanes)
            take(rest, read(row + j, args.columns - j < lanes ? static_cast<int>(args.columns - j) : lanes));
    }
    Bits result = 0;
    for (const Magnitudes& most : {even, odd, rest})
        for (int i = 0; i < lanes; ++i) result = most[i] > result ? most[i] : result;
    Compute<T> value;
    std::memcpy(&value, &result, sizeof value);
    *args.into = larger(*args.into, static_cast<double>(value));
}

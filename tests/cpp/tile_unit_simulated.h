// Intel's AMX in plain loops, after the pseudo-code of its manual (TILELOADD, TDPBF16PS, TILESTORED), behind the names
// of kernels/cpu/tile_unit.h: so the kernels that use it are tested on any machine. Included inside an ISA's namespace.
//
// Invariant: whoever uses a tile that is not configured is stopped.

struct SimulatedTiles {
    bool configured = false;
    std::uint32_t words[8][16][16];

    std::uint32_t (&operator[](int tile))[16][16] {
        if (!configured) std::abort();
        return words[tile];
    }
};
inline thread_local SimulatedTiles simulated;

class ConfiguredTiles {
public:
    ConfiguredTiles() : found_(simulated.configured) { configure(true); }
    ~ConfiguredTiles() { configure(found_); }
    ConfiguredTiles(const ConfiguredTiles&) = delete;

private:
    static void configure(bool on) {
        simulated.configured = on;
        std::memset(simulated.words, 0, sizeof simulated.words);
    }
    const bool found_;
};

template <int tile>
void tile_zero() {
    std::memset(simulated[tile], 0, sizeof simulated[tile]);
}
template <int tile, class Number>
void tile_load(const Number* from, std::int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(simulated[tile][i], from + i * stride, 64);
}
template <int tile>
void tile_load_once(const bfloat16* from, std::int64_t stride) {
    tile_load<tile>(from, stride);
}
template <int tile>
void tile_store(float* to, std::int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(to + i * stride, simulated[tile][i], 64);
}

inline float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
// Denormals are taken for zero, and zeros given for them.
inline float flushed(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }

// As std::fma, in a fraction of its time: a product of two bfloat16 has 16 bits, and where its sum with a float has
// more than a double's 53, the part that is lost lies too far below the float's last bit to decide a rounding.
inline float fused(float x, float y, float z) { return static_cast<float>(static_cast<double>(x) * y + z); }

// Even and odd terms are summed apart, each by fused multiply-adds; then their sum is added to what is there.
template <int sum, int left, int right>
void tile_dot() {
    auto& a = simulated[left];
    auto& b = simulated[right];
    for (int m = 0; m < 16; ++m) {
        float even[16] = {}, odd[16] = {};
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 16; ++n) {
                even[n] = flushed(fused(flushed(float_of(a[m][k] << 16)), flushed(float_of(b[k][n] << 16)), even[n]));
                odd[n] = flushed(
                    fused(flushed(float_of(a[m][k] & 0xffff0000u)), flushed(float_of(b[k][n] & 0xffff0000u)), odd[n]));
            }
        for (int n = 0; n < 16; ++n) {
            const float total = flushed(flushed(float_of(simulated[sum][m][n])) + flushed(even[n] + odd[n]));
            std::memcpy(&simulated[sum][m][n], &total, sizeof total);
        }
    }
}

// Intel's AMX: eight tiles of 16 rows of 64 bytes, and dot products of pairs of bfloat16 between them. Strides count
// elements. Included inside an ISA's namespace.
//
// Invariant: outside of a kernel's call a thread's tiles are as it was found with them.
//
// Statements of assembly, not the compiler's intrinsics: GCC's do not say that loads read memory, and stores that fill
// what is loaded may be moved behind them.

struct alignas(64) TileConfiguration {
    std::uint8_t palette, start_row, reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
};
static_assert(sizeof(TileConfiguration) == 64, "as LDTILECFG reads it");

constexpr TileConfiguration whole_tiles = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Held by every kernel's call that uses tiles: 170 cycles (46 ns measured), where a call takes from 4,000, of 128 rows
// at a width of 64, to 1,000,000. A thread that kept its tiles configured would carry 8 KiB through every context
// switch, and a caller's thread is not ours to configure. Its configuration comes back; the contents of its tiles do
// not, as by the ABI no call keeps them.
class ConfiguredTiles {
public:
    ConfiguredTiles() {
        asm volatile("sttilecfg %0" : "=m"(found_));
        asm volatile("ldtilecfg %0" ::"m"(whole_tiles));
    }
    ~ConfiguredTiles() {
        if (found_.palette == 0)
            asm volatile("tilerelease");
        else
            asm volatile("ldtilecfg %0" ::"m"(found_));
    }
    ConfiguredTiles(const ConfiguredTiles&) = delete;

private:
    TileConfiguration found_;
};

template <int tile>
RC_HD void tile_zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
template <int tile>
RC_HD void tile_load(const bfloat16* from, std::int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride * 2) : "memory");
}
// The same of what L1 need not keep.
template <int tile>
RC_HD void tile_load_once(const bfloat16* from, std::int64_t stride) {
    asm volatile("tileloaddt1 (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride * 2) : "memory");
}
template <int tile>
RC_HD void tile_load(const float* from, std::int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride * 4) : "memory");
}
template <int tile>
RC_HD void tile_store(float* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(stride * 4) : "memory");
}
// sum += left·right: row m of `left` holds pairs (2k, 2k + 1), row k of `right` the same pairs of every column.
template <int sum, int left, int right>
RC_HD void tile_dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
}

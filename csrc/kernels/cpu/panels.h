// Weights in blocks of lanes × lanes: read from rows, turned in registers, and written to the panels that the products
// read (see ops.h). Included inside the namespace of one instruction set.

// use(block, k, j, rows, columns) for the blocks of W's rows [first, inner) that lie in the panel of its `columns` from
// `column` on: rows k onwards, columns j onwards, and how many of them exist; beyond them a block is zero. In a whole
// block both are constants. `from` is W's row 0 at that column.
template <class C, class Use>
RC_HD void visit_panel_blocks(Rows<C> from, std::int64_t first, std::int64_t inner, std::int64_t columns,
                              std::int64_t column, Use use) {
    constexpr int lanes = Vec<C>::lanes, width = 2 * lanes;
    using Whole = std::integral_constant<int, lanes>;
    for (std::int64_t k = first; k < inner; k += lanes)
        for (std::int64_t j = column; j < column + width && j < columns; j += lanes) {
            const C* at = from.data + k * from.stride + j - column;
            Vec<C> block[lanes];
            if (inner - k >= lanes && columns - j >= lanes) {
                each_row<lanes>([&](int i) { block[i] = read(at + i * from.stride); });
                use(block, k, j, Whole(), Whole());
                continue;
            }
            const int rows = inner - k < lanes ? static_cast<int>(inner - k) : lanes;
            const int there = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
            for (int i = 0; i < rows; ++i) block[i] = read(at + i * from.stride, there);
            use(block, k, j, rows, there);
        }
}

// How vectors reach memory.
struct ThroughCaches {
    template <class T>
    static RC_HD void put(const Vec<T>& x, T* p) {
        x.store(p);
    }
    template <class T>
    static RC_HD void put(Words words, T* p) {
        *reinterpret_cast<UnalignedWords*>(p) = words;
    }
    static RC_HD void settle() {}
};
#if defined(__AVX512F__)
// Where a vector is a line, which then is not read before it is overwritten. Another thread sees it once it is settled.
struct PastCaches {
    template <class T>
    static void put(const Vec<T>& x, T* p) {
        is_line(p) ? stream((__m512i)x.v, p) : ThroughCaches::put(x, p);
    }
    template <class T>
    static void put(Words words, T* p) {
        is_line(p) ? stream((__m512i)words, p) : ThroughCaches::put(words, p);
    }
    static void settle() { _mm_sfence(); }

private:
    static bool is_line(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(__m512i) == 0; }
    static void stream(__m512i line, void* p) { _mm512_stream_si512(static_cast<__m512i*>(p), line); }
};
#else
using PastCaches = void;
#endif

// The first rows of a block to rows k onwards of a panel of an operand, from its column `at` on.
template <class To = ThroughCaches, class T, class Count>
RC_HD void write_rows(const Vec<T> (&block)[Vec<T>::lanes], Count rows, T* panel, std::int64_t k, std::int64_t at) {
    constexpr int width = 2 * Vec<T>::lanes;
    for (int i = 0; i < rows; ++i) To::put(block[i], panel + (k + i) * width + at);
}
// In pairs, the last with a row of zeros where it has none.
template <class To = ThroughCaches, class Count>
RC_HD void write_rows(const Vec<float> (&block)[Vec<float>::lanes], Count rows, bfloat16* panel, std::int64_t k,
                      std::int64_t at) {
    constexpr int width = 2 * Vec<float>::lanes;
    for (int i = 0; i < rows; i += 2) To::put(pairs_of(block[i], block[i + 1]), panel + (k + i) * width + 2 * at);
}
#if defined(RC_TILE_UNIT)
// Those of the high halves, and, behind those of the 32 rows that k is among, those of the low ones.
template <class To = ThroughCaches, class Count>
RC_HD void write_rows(const Vec<float> (&block)[Vec<float>::lanes], Count rows, bfloat16x2* panel, std::int64_t k,
                      std::int64_t at) {
    constexpr std::int64_t width = 2 * Vec<float>::lanes, halves = plane * width;
    bfloat16* to = reinterpret_cast<bfloat16*>(panel + k / plane * halves) + k % plane * width + 2 * at;
    for (int i = 0; i < rows; i += 2, to += 2 * width) {
        const Words even = halves_of(block[i]), odd = halves_of(block[i + 1]);
        To::put(even >> 16 | (odd & 0xffff0000u), to);
        To::put((even & 0xffffu) | odd << 16, to + halves);
    }
}
#else
// Each half of an element in both places of a pair.
template <class To = ThroughCaches, class Count>
RC_HD void write_rows(const Vec<float> (&block)[Vec<float>::lanes], Count rows, bfloat16x2* panel, std::int64_t k,
                      std::int64_t at) {
    constexpr int width = 2 * Vec<float>::lanes;
    for (int i = 0; i < rows; ++i) {
        const Words words = halves_of(block[i]);
        bfloat16x2* to = panel + 2 * (k + i) * width + at;
        To::put(high_twice(words), to);
        To::put(low_twice(words), to + width);
    }
}
#endif

// What `write_rows` leaves out of the operand of a matrix (inner, columns): rows beyond the last, and a panel that
// columns end in.
template <class T>
RC_HD void clear_padding(std::int64_t inner, std::int64_t columns, T* panels) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    const std::int64_t rows = operand_rows<T>(inner);
#if defined(RC_TILE_UNIT)
    constexpr std::int64_t together = planes<T> == 2 ? plane : 2;
#else
    constexpr std::int64_t together = computes_itself<T> ? 1 : 2;
#endif
    const std::int64_t sure = inner / together * together * operand_parts<T>;
    for (std::int64_t column = 0; column < columns; column += width, panels += rows * width) {
        const std::int64_t written = columns - column < width ? 0 : sure;
        std::memset(panels + written * width, 0, static_cast<std::size_t>((rows - written) * width) * sizeof *panels);
    }
}

// Products of bfloat16 where no instruction takes them, in place of micro_kernel.h's: numbers are made floats a block
// at a time and multiplied as floats. Beside the products themselves such conversions would cost more than they do.
// Included inside an ISA's namespace.
//
// Invariant: as micro_kernel.h's. Sums are cut after `widened_terms` of a source, and the parts added in their order.

// A block's sizes. A's numbers are made floats once for its columns, and W's once for its rows; all three arrays
// together are some 80 KB, of which a register tile's stay in L1.
constexpr int widened_rows = 48, widened_columns = 64, widened_terms = 256;
// So few rows use a number of W no more often than it would be stored and loaded: it stays in a register.
constexpr int few_rows = 4;

RC_HD int at_most(std::int64_t left, int block) { return left < block ? static_cast<int>(left) : block; }

// Panels are read in pieces, a block's next to one another: where one ends the hardware does not know what follows.
RC_HD void ask_ahead(const bfloat16* pairs) {
    constexpr int ahead = 512;
#pragma GCC unroll 2
    for (int v = 0; v < 2; v += vectors_of_line) __builtin_prefetch(pairs + ahead + 2 * v * word_lanes, 0, 2);
}

// Two rows of a panel of pairs.
RC_HD void widen_pairs(const bfloat16* pairs, float* even, float* odd) {
    ask_ahead(pairs);
    each_row<2>([&](int v) {
        const Words words = read_pairs(pairs + 2 * v * word_lanes);
        low_of(words).store(even + v * word_lanes);
        high_of(words).store(odd + v * word_lanes);
    });
}
// `n` numbers of a row, and zeros up to a whole vector.
RC_HD void widen_row(const bfloat16* from, std::int64_t n, float* to) {
    std::int64_t k = 0;
    for (; k + word_lanes <= n; k += word_lanes) read(from + k).store(to + k);
    if (k < n) read(from + k, static_cast<int>(n - k)).store(to + k);
}

// acc += A·W for an even number of terms, of floats and of pairs, in the order of `accumulate`.
template <int MR, int V>
RC_HD void accumulate_widening(const float* a, std::int64_t row_step, const bfloat16* pairs, std::int64_t terms,
                               Accumulators<float, MR, V>& acc) {
    for (std::int64_t k = 0; k < terms; k += 2, pairs += 4 * word_lanes) {
        ask_ahead(pairs);
        Vec<float> even[V], odd[V];
        each_row<V>([&](int v) {
            const Words words = read_pairs(pairs + 2 * v * word_lanes);
            even[v] = low_of(words), odd[v] = high_of(words);
        });
        each_row<MR>([&](int i) {
            const Vec<float> x(a[i * row_step + k]), y(a[i * row_step + k + 1]);
            each_row<V>([&](int v) { acc.at[i][v] = multiply_add(y, odd[v], multiply_add(x, even[v], acc.at[i][v])); });
        });
    }
}

// Some terms of one source's sum, as floats, and the register tiles that add them up.
class WidenedTerms {
public:
    static constexpr int width = 2 * word_lanes;

    void take_rows(Rows<bfloat16> from, int rows, std::int64_t terms) {
        terms_ = (terms + 1) / 2 * 2;  // behind an odd last one both sides have a zero, added for few rows and many
        few_ = rows <= few_rows;
        for (int i = 0; i < rows; ++i) widen_row(from.data + i * from.stride, terms, a_[i]);
    }
    // `pairs`: of this source's panel, from the first of the terms on.
    void take_panel(const bfloat16* pairs) {
        pairs_ = pairs;
        for (std::int64_t k = 0; k < terms_ && !few_; k += 2, pairs += 2 * width) widen_pairs(pairs, w_[k], w_[k + 1]);
    }
    // The sums of a panel, whose second vector may have no columns, into memory: written, or added to what is there.
    void add_to(float* sums, int rows, bool first, bool both_vectors) const {
        Tiles tiles{*this, sums, first, both_vectors};
        visit_blocks<RC_TILE_ROWS>(0, rows, tiles);
    }

private:
    // A row is no power of two: those of a register tile would share the cache's sets.
    static constexpr std::int64_t row_length = widened_terms + 16;

    template <int MR, int V>
    __attribute__((noinline)) void add_rows(std::int64_t row, float* to, bool first) const {
        Accumulators<float, MR, V> sum;
        if constexpr (MR <= few_rows)
            if (few_) {
                accumulate_widening<MR, V>(a_[row], row_length, pairs_, terms_, sum);
                return into_memory(sum, to, first);
            }
        NothingAhead nothing;
        accumulate<MR, V>(Strided<float>{a_[row], row_length, 1}, w_[0], width, terms_, sum, nothing);
        into_memory(sum, to, first);
    }
    struct Tiles {
        const WidenedTerms& terms;
        float* sums;
        bool first, both_vectors;

        template <int MR>
        RC_HD void run(std::int64_t row) {
            float* to = sums + row * width;
            both_vectors ? terms.add_rows<MR, 2>(row, to, first) : terms.add_rows<MR, 1>(row, to, first);
        }
    };

    std::int64_t terms_ = 0;
    bool few_ = false;
    const bfloat16* pairs_ = nullptr;
    alignas(64) float a_[widened_rows][row_length];
    alignas(64) float w_[widened_terms][width];
};

template <>
struct PanelLoop<bfloat16> {
    template <class Formulas, class Args>
    static void run(const Args& args, std::int64_t first, std::int64_t last) {
        constexpr int panels = widened_columns / WidenedTerms::width;
        WidenedTerms terms;
        StoredTile<bfloat16, widened_rows> sums[panels];
        for (std::int64_t row = 0; row < args.rows; row += widened_rows)
            for (std::int64_t panel = first; panel < last; panel += panels) {
                const int rows = at_most(args.rows - row, widened_rows);
                const int here = at_most(last - panel, panels);
                sum_block(args, row, rows, panel, here, terms, sums);
                for (int p = 0; p < here; ++p) {
                    Formulas epilogue = epilogue_of<bfloat16, Formulas>(args, panel + p);
                    finish_stored<RC_TILE_ROWS>(sums[p], 0, rows, row, epilogue);
                }
            }
    }

private:
    template <class Args, int panels>
    static void sum_block(const Args& args, std::int64_t row, int rows, std::int64_t panel, int here,
                          WidenedTerms& terms, StoredTile<bfloat16, widened_rows> (&sums)[panels]) {
        constexpr int width = WidenedTerms::width;
        bool written = false;
        for (int s = 0; s < args.n_sources; ++s) {
            const Source<bfloat16>& source = args.sources[s];
            const bfloat16* w = source.panels + panel * operand_rows<bfloat16>(source.inner) * width;
            for (std::int64_t k = 0; k < source.inner; k += widened_terms, written = true) {
                terms.take_rows({source.rows.data + row * source.rows.stride + k, source.rows.stride}, rows,
                                at_most(source.inner - k, widened_terms));
                for (int p = 0; p < here; ++p) {
                    terms.take_panel(w + (p * operand_rows<bfloat16>(source.inner) + k) * width);
                    const bool both = args.columns > (panel + p) * width + word_lanes;
                    terms.add_to(sums[p].at[0], rows, !written, both);
                }
            }
        }
        for (int p = 0; p < here && !written; ++p)
            std::memset(sums[p].at, 0, static_cast<std::size_t>(rows) * sizeof sums[p].at[0]);
    }
};

// Between row-major matrices and packed panels, for every instruction set, storage and tail: element for element what
// ops.h says, padding included, from rows with gaps and to rows with gaps, all flush against forbidden pages.
#include <string>

#include "small_integers.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    using C = Compute<T>;
    const KernelTable<T>& k;
    std::string where;
    std::int64_t inner, columns;
    Flush flush;

    MatrixOf<C> w{inner, columns, flush, MatrixOf<C>::Fill::reals, 3};

    // What has been used before, and holds no zeros.
    template <class U>
    static void soil(Guarded<U>& memory) {
        std::memset(memory.data(), 0x5a, static_cast<std::size_t>(memory.size()) * sizeof(U));
    }

    // Row `row` of W, or of Wᵀ, at a column; zero beyond either.
    C element(bool turned, std::int64_t row, std::int64_t column) {
        if (turned) std::swap(row, column);
        return row < inner && column < columns ? w.at(row, column) : C(0);
    }

    // Element (row, column) of panels with `rows` rows each, in a type that is stored as it is computed with.
    template <class U>
    bool holds(const U* panels, std::int64_t rows, std::int64_t row, std::int64_t column, C value) {
        return panels[(column / k.panel * rows + row) * k.panel + column % k.panel] == value;
    }
    // In pairs of rows.
    bool holds(const bfloat16* panels, std::int64_t rows, std::int64_t row, std::int64_t column, C value) {
        const bfloat16* pair = panels + (column / k.panel * rows + row / 2 * 2) * k.panel + column % k.panel * 2;
        return pair[row % 2].bits == to_bfloat16(value).bits;
    }
    // Each half twice, or in planes of 32 rows.
    bool holds(const bfloat16x2* panels, std::int64_t rows, std::int64_t row, std::int64_t column, C value) {
        if (k.operand_parts == 1) {
            const auto* step =
                reinterpret_cast<const bfloat16*>(panels + (column / k.panel * rows + row / 32 * 32) * k.panel);
            const bfloat16* high = step + row % 32 / 2 * 2 * k.panel + column % k.panel * 2 + row % 2;
            const bfloat16x2 exact = to_bfloat16x2(value);
            return high->bits == exact.high.bits && high[32 * k.panel].bits == exact.low.bits;
        }
        const bfloat16x2* high = panels + (column / k.panel * rows + 2 * row) * k.panel + column % k.panel;
        const bfloat16x2 exact = to_bfloat16x2(value), *low = high + k.panel;
        return high->high.bits == exact.high.bits && high->low.bits == exact.high.bits &&
               low->high.bits == exact.low.bits && low->low.bits == exact.low.bits;
    }

    template <class U>
    void same(const char* what, Guarded<U>& panels, std::int64_t rows, std::int64_t width, bool turned) {
        const std::int64_t each = std::is_same<U, bfloat16x2>::value ? k.operand_parts : 1;
        for (std::int64_t i = 0; i < rows / each; ++i)
            for (std::int64_t j = 0; j < panel_count(width, k.panel) * k.panel; ++j)
                CHECK(holds(panels.data(), rows, i, j, element(turned, i, j)), "%s: %s at %d %d", where.c_str(), what,
                      int(i), int(j));
    }

    std::int64_t rows_of_operand(std::int64_t of) const {
        return operand_rows<T>(of) / operand_parts<T> * k.operand_parts;
    }

    void run() {
        Guarded<C> panels(packed_size(inner, columns, k.panel), flush);
        Guarded<T> operand(operand_size(k, inner, columns), flush), transposed(operand_size(k, columns, inner), flush);
        soil(panels), soil(operand), soil(transposed);
        k.pack(inner, columns, w.view(), panels.data());
        k.pack_operand(inner, columns, w.view(), operand.data());
        k.pack_transposed(inner, columns, w.view(), transposed.data());
        same("parameter", panels, inner, columns, false);
        same("operand", operand, rows_of_operand(inner), columns, false);
        same("transpose", transposed, rows_of_operand(columns), inner, true);

        MatrixOf<C> back(inner, columns, flush, MatrixOf<C>::Fill::zeros, 2);
        MatrixOf<C> turned(columns, inner, flush, MatrixOf<C>::Fill::zeros, 2);
        k.unpack(inner, columns, panels.data(), back.mutable_view());
        k.unpack_transposed(inner, columns, panels.data(), turned.mutable_view());
        for (std::int64_t i = 0; i < inner; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                CHECK(back.at(i, j) == w.at(i, j), "%s: unpacked at %d %d", where.c_str(), int(i), int(j));
                CHECK(turned.at(j, i) == w.at(i, j), "%s: turned at %d %d", where.c_str(), int(j), int(i));
            }
        CHECK(back.gaps_untouched() && turned.gaps_untouched(), "%s: between rows", where.c_str());
        if (k.pack_operand_past_caches) run_past_caches(panels, turned);
        fold(panels, operand);
    }

    void run_past_caches(Guarded<C>& panels, MatrixOf<C>& turned) {
        Guarded<T> operand(operand_size(k, inner, columns), flush), transposed(operand_size(k, columns, inner), flush);
        soil(operand), soil(transposed);
        k.pack_operand_past_caches(inner, columns, w.view(), operand.data());
        k.pack_transposed_past_caches(inner, columns, w.view(), transposed.data());
        same("operand past the caches", operand, rows_of_operand(inner), columns, false);
        same("transpose past the caches", transposed, rows_of_operand(columns), inner, true);
        for (std::int64_t extra : {0, 16}) {  // lines, and what begins within one
            MatrixOf<C> again(columns, inner, flush, MatrixOf<C>::Fill::zeros, extra);
            k.unpack_transposed_past_caches(inner, columns, panels.data(), again.mutable_view());
            for (std::int64_t i = 0; i < inner; ++i)
                for (std::int64_t j = 0; j < columns; ++j)
                    CHECK(again.at(j, i) == turned.at(j, i), "%s: turned past the caches at %d %d", where.c_str(),
                          int(j), int(i));
            CHECK(again.gaps_untouched(), "%s: between rows, past the caches", where.c_str());
        }
    }

    void fold(Guarded<C>& panels, Guarded<T>& operand) {
        MatrixOf<C> norm(3, columns, flush), bias(1, columns, flush);
        NormCoefficients<T> coefficients;
        coefficients.mean = &norm.at(0, 0), coefficients.scale = &norm.at(1, 0), coefficients.shift = &norm.at(2, 0);
        soil(operand);
        k.fold({inner, columns, panels.data(), coefficients, operand.data(), bias.data()});
        for (std::int64_t i = 0; i < inner; ++i)
            for (std::int64_t j = 0; j < columns; ++j) w.at(i, j) *= norm.at(1, j);
        same("folded", operand, rows_of_operand(inner), columns, false);
        for (std::int64_t j = 0; j < columns; ++j)
            CHECK(bias.at(0, j) == norm.at(2, j) - norm.at(0, j) * norm.at(1, j), "%s: bias at %d", where.c_str(),
                  int(j));
    }
};

template <class T>
void run(const KernelTable<T>& k, const std::string& isa) {
    for (Flush flush : {Flush::end, Flush::start})
        for (std::int64_t inner : {1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 65})
            for (std::int64_t columns : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 23, 31, 32, 33, 48, 63, 64, 65}) {
                const std::string where = isa + " " + std::to_string(inner) + " x " + std::to_string(columns);
                Case<T>{k, where, inner, columns, flush}.run();
            }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    for (const Isa& isa : known_isas()) {
        if (!isa.compiled || !isa.supported) continue;
        run(*isa.bf16, isa.name + " bfloat16");
        if (isa.bf16x2) run(*isa.bf16x2, isa.name + " bfloat16x2");
    }
    return summary("packing");
}

// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative.
#include "kernels/cuda/ampere/sum.cuh"
#include "kernels/cuda/hopper/sum.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct BackwardDataByPasses;

template <class T>
struct BackwardData {
    using KeepsPasses = std::false_type;
    BackwardDataArgs<T> args;

    bool is_on_boundaries() const {
        return are_on_boundaries(args.identity, args.n_identity) && on_boundaries(args.mask, args.saved, args.out);
    }

    // As nearly every layer, with a skip at the most.
    bool is_usual() const { return !args.mask.data && (hopper::is_activation<Identity>(args.activation) || is_relu()); }
    RC_HD bool is_relu() const { return hopper::is_activation<Relu>(args.activation); }
    template <class Launch>
    bool with_passes(Launch launch) const {
        if (!args.passes || !args.passes->there || !is_relu() || args.saved_is_argument) return false;
        launch(BackwardDataByPasses<T>{*this, args.passes->bits});
        return true;
    }

    // Of what was saved, a bit for each number: whether its slope is 1, and not 0.
    __device__ __forceinline__ void add_passes(const hopper::Words& saved, int place, std::uint32_t& bits) const {
        const Stretch<float, 8> numbers = numbers_of(saved);
#pragma unroll
        for (int c = 0; c < 8; ++c)
            if (derivative<Relu>(numbers.at[c], args.saved_is_argument) != 0) bits |= 1u << (place + c);
    }
    template <int n>
    __device__ __forceinline__ Stretch<float, n> finish_usual(Stretch<float, n> g, const Stretch<float, n>& skip,
                                                              std::uint32_t passes) const {
        each(g, Plus(), skip);
#pragma unroll
        for (int c = 0; c < n; ++c) g.at[c] = g.at[c] * (passes >> c & 1 ? 1.0f : 0.0f);
        return g;
    }

    struct Ahead {
        hopper::Words skip[hopper::Strip::count];
        std::uint32_t passes[2];

        __device__ __forceinline__ static int place(int v) { return v * hopper::Strip::width % 32; }
        __device__ __forceinline__ std::uint32_t& passes_of(int v) { return passes[v * hopper::Strip::width / 32]; }
        __device__ __forceinline__ std::uint32_t passes_of(int v) const {
            return passes[v * hopper::Strip::width / 32] >> place(v);
        }
    };
    template <int most>
    __device__ __forceinline__ Ahead ahead(const hopper::Strip& strip, const Terms<T, most>& terms) const {
        using hopper::Strip;
        Ahead x = {};
        hopper::Words saved[Strip::count];
        strip.read(is_relu() ? args.saved : Rows<T>(), hopper::ones, saved);
#pragma unroll
        for (int v = 0; v < Strip::count; ++v) add_passes(saved[v], Ahead::place(v), x.passes_of(v));
        strip.read(terms.n_identity > 0 ? terms.identity[0] : Rows<T>(), hopper::nothing_twice, x.skip);
        return x;
    }
    __device__ __forceinline__ Stretch<float, hopper::Strip::width> finish_usual(Stretch<float, hopper::Strip::width> g,
                                                                                 const Ahead& ahead, int v) const {
        return finish_usual(g, numbers_of(ahead.skip[v]), ahead.passes_of(v));
    }

    // The same of a broad tile, two columns at a time. The bits are prepared, a byte for eight columns, a row's side by
    // side; a warp has whole rows, some of them at a time.
    template <class Begin>
    __device__ __forceinline__ void prepare(Shared to, std::int64_t first_row, std::int64_t first_column,
                                            Begin begin) const {
        using namespace hopper;
        constexpr int rows_of_warp = tile_rows / preparing_warps, together = 16;
        static_assert(broad_columns == 32 * 8, "a warp has a row");
        const int first = preparing_thread() / 32 * rows_of_warp;
        const std::int64_t j = first_column + lane() * 8;
        const bool asks = is_relu() && j < args.columns;
#pragma unroll 1
        for (int row = first; row < first + rows_of_warp; row += together) {
            Words saved[together];
#pragma unroll
            for (int v = 0; v < together; ++v) {
                const std::int64_t i = first_row + row + v;
                saved[v] = {{ones, ones, ones, ones}};
                if (asks && i < args.rows)
                    saved[v] = *reinterpret_cast<const Words*>(args.saved.data + i * args.saved.stride + j);
            }
            if (row == first) begin();
#pragma unroll
            for (int v = 0; v < together; ++v) {
                std::uint32_t bits = 0;
                add_passes(saved[v], 0, bits);
                store_byte(place_of_bits(to, row + v) + static_cast<std::uint32_t>(lane()), bits);
            }
        }
    }
    struct OfRow {
        std::uint32_t words[2];
    };
    __device__ __forceinline__ OfRow of_row(Shared prepared, int row, int box) const {
        const Shared at = hopper::place_of_bits(prepared, row) + static_cast<std::uint32_t>(box) * 8;
        return {{load_word(at), load_word(at + 4)}};
    }
    struct OfColumns {};
    __device__ __forceinline__ OfColumns of_columns(Shared, int) const { return {}; }
    static __device__ __forceinline__ hopper::Pair added_to_zero(hopper::Pair g) {
        each(g, Plus(), hopper::Pair{});  // sums begin from +0
        return g;
    }
    __device__ __forceinline__ hopper::Pair finish_pair(const hopper::Pair& g, const hopper::Pair& skip, OfColumns,
                                                        const OfRow& bits, int chunk, int column) const {
        return finish_usual(added_to_zero(g), skip, bits.words[chunk / 4] >> (chunk % 4 * 8 + column));
    }

    // n neighbours of row i, from column j on.
    template <int n, int most, class Kept>
    __device__ __forceinline__ void add(Stretch<Compute<T>, n>& g, const Terms<T, most>& terms, std::int64_t i,
                                        std::int64_t j, const Kept& kept) const {
        terms.add_identities(g, i, j, kept);
    }
    template <int n, class Kept>
    __device__ __forceinline__ void add_branch(Stretch<Compute<T>, n>&, std::int64_t, std::int64_t, const Kept&) const {
    }
    RC_HD Rows<T> branch() const { return {}; }

    template <int n, class Kept>
    __device__ __forceinline__ void finish(Stretch<Compute<T>, n> g, std::int64_t i, std::int64_t j,
                                           LargestResult<T>& largest, const Kept& kept) const {
        if (args.mask.data) each(g, Times(), read<n>(args.mask, i, j));
        visit_type(args.activation, Activations{}, [&](auto activation) {
            using Activation = decltype(activation);
            if constexpr (!std::is_same<Activation, Identity>::value)
                each(
                    g,
                    [&](Compute<T> x, Compute<T> saved) {
                        return x * derivative<Activation>(saved, args.saved_is_argument);
                    },
                    kept.template get<n>(args.saved, i, j));
        });
        write<n>(g, args.out, i, j);
        largest.add(g);
    }
    RC_HD Rows<T> last() const { return hopper::is_activation<Identity>(args.activation) ? Rows<T>() : args.saved; }
};

// By the bits of what was saved, of broad tiles alone: they are prepared as they lie, boxes of a half side by side.
template <class T>
struct BackwardDataByPasses : BackwardData<T> {
    const std::uint32_t* bits;

    BackwardDataByPasses(const BackwardData<T>& back, const std::uint32_t* bits) : BackwardData<T>(back), bits(bits) {}

    static __device__ __forceinline__ Shared place(Shared prepared, int row, int box) {
        return prepared + static_cast<std::uint32_t>((row / hopper::group_rows * hopper::broad_boxes + box) *
                                                     hopper::group_threads) *
                              sizeof(std::uint32_t);
    }
    template <class Begin>
    __device__ __forceinline__ void prepare(Shared to, std::int64_t first_row, std::int64_t first_column,
                                            Begin begin) const {
        using namespace hopper;
        constexpr int words = sizeof(Words) / sizeof(std::uint32_t), of_box = group_threads / words;
        constexpr int count = using_groups * broad_boxes * of_box / (32 * preparing_warps);
        const BackwardDataArgs<T>& args = this->args;
        Words read[count];
        const auto visit = [&](auto each) {
#pragma unroll
            for (int v = 0; v < count; ++v) {
                const int at = preparing_thread() + v * 32 * preparing_warps, box = at / of_box;
                each(read[v], box / broad_boxes * group_rows, box % broad_boxes, at % of_box * words);
            }
        };
        visit([&](Words& x, int row, int box, int word) {
            const std::int64_t i = first_row + row, j = first_column + box * box_width;
            x = {};
            if (i < args.rows && j < args.columns)
                x = *reinterpret_cast<const Words*>(bits + pass_place(i, j, args.columns) + word);
        });
        begin();
        visit([&](Words& x, int row, int box, int word) {
            store_words(place(to, row, box) + static_cast<std::uint32_t>(word) * sizeof(std::uint32_t), x.at);
        });
    }
    // The thread's word of 64 rows, and which of its pairs are in this one.
    struct OfRow {
        std::uint32_t word;
        int down;
    };
    __device__ __forceinline__ OfRow of_row(Shared prepared, int row, int box) const {
        const std::uint32_t thread = threadIdx.x % hopper::group_threads;
        return {load_word(place(prepared, row, box) + thread * static_cast<std::uint32_t>(sizeof(std::uint32_t))),
                row / 8 % 2};
    }
    __device__ __forceinline__ hopper::Pair finish_pair(hopper::Pair g, const hopper::Pair& skip,
                                                        typename BackwardData<T>::OfColumns, const OfRow& of_row,
                                                        int chunk, int) const {
        g = this->added_to_zero(g);
        each(g, Plus(), skip);
        each(g, Times(), hopper::slopes_of(of_row.word, 2 * chunk + of_row.down));
        return g;
    }
};

}  // namespace

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    const BackwardData<T> epilogue{args};
    if (!hopper::launch_sum<T>(epilogue) && !ampere::launch_sum<T>(epilogue)) launch_sum<T>(epilogue);
}

#define RC_INSTANTIATE(T) template void backward_data(const BackwardDataArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

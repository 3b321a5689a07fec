// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative.
#include "kernels/cuda/hopper/sum.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct BackwardData {
    BackwardDataArgs<T> args;

    bool is_on_boundaries() const {
        return are_on_boundaries(args.identity, args.n_identity) && on_boundaries(args.mask, args.saved, args.out);
    }

    // As nearly every layer, with a skip at the most.
    bool is_usual() const { return !args.mask.data && (hopper::is_activation<Identity>(args.activation) || is_relu()); }
    RC_HD bool is_relu() const { return hopper::is_activation<Relu>(args.activation); }

    // Of what was saved, a bit for each number: whether its slope is 1, and not 0.
    struct Ahead {
        hopper::Words skip[hopper::Strip::count];
        std::uint32_t passes[2];

        __device__ __forceinline__ static int bit(int v, int c) { return v * hopper::Strip::width % 32 + c; }
        __device__ __forceinline__ std::uint32_t& passes_of(int v) { return passes[v * hopper::Strip::width / 32]; }
        __device__ __forceinline__ bool lets_pass(int v, int c) const {
            return passes[v * hopper::Strip::width / 32] >> bit(v, c) & 1;
        }
    };
    template <int most>
    __device__ __forceinline__ Ahead ahead(const hopper::Strip& strip, const Terms<T, most>& terms) const {
        using hopper::Strip;
        Ahead x = {};
        hopper::Words saved[Strip::count];
        constexpr std::uint32_t ones = 0x3f803f80;  // 1, twice
        strip.read(is_relu() ? args.saved : Rows<T>(), ones, saved);
#pragma unroll
        for (int v = 0; v < Strip::count; ++v) {
            const Stretch<float, Strip::width> numbers = numbers_of(saved[v]);
#pragma unroll
            for (int c = 0; c < Strip::width; ++c)
                if (derivative<Relu>(numbers.at[c], args.saved_is_argument) != 0)
                    x.passes_of(v) |= 1u << Ahead::bit(v, c);
        }
        strip.read(terms.n_identity > 0 ? terms.identity[0] : Rows<T>(), Strip::nothing_twice, x.skip);
        return x;
    }
    __device__ __forceinline__ Stretch<float, hopper::Strip::width> finish_usual(Stretch<float, hopper::Strip::width> g,
                                                                                 const Ahead& ahead, int v) const {
        each(g, Plus(), numbers_of(ahead.skip[v]));
#pragma unroll
        for (int c = 0; c < hopper::Strip::width; ++c) g.at[c] = g.at[c] * (ahead.lets_pass(v, c) ? 1.0f : 0.0f);
        return g;
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

}  // namespace

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    const BackwardData<T> epilogue{args};
    if (!hopper::launch_sum<T>(epilogue)) launch_sum<T>(epilogue);
}

#define RC_INSTANTIATE(T) template void backward_data(const BackwardDataArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

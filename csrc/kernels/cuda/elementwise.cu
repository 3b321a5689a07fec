// Gates and dropout masks.
#include "kernels/cuda/elements.cuh"
#include "math/activation.h"
#include "math/gate.h"
#include "math/random.h"

namespace resnetcore {
namespace cuda {
namespace {

struct Gated {
    template <class C>
    __device__ __forceinline__ C operator()(C h, C t, C x) const {
        return gated(h, t, x);
    }
};

template <class T>
struct Gate {
    GateArgs<T> args;
    template <int n>
    __device__ void operator()(Columns<n>, std::int64_t i, std::int64_t j) const {
        Stretch<Compute<T>, n> a = read<n>(args.h, i, j);
        each(a, Gated(), read<n>(args.t, i, j), read<n>(args.x, i, j));
        if (args.mask.data) each(a, Times(), read<n>(args.mask, i, j));
        write_both<n>(a, args.out, args.wide, i, j);
    }
};

template <class T>
struct GateBackward {
    GateBackwardArgs<T> args;
    template <int n>
    __device__ void operator()(Columns<n>, std::int64_t i, std::int64_t j) const {
        using C = Compute<T>;
        const Stretch<C, n> g = read<n>(args.gradient, i, j), h = read<n>(args.h, i, j), t = read<n>(args.t, i, j);
        const Stretch<C, n> x = read<n>(args.x, i, j);
        Stretch<C, n> d_h = g, d_t = g, d_x = g;
        each(d_h, Times(), t);
        visit_type(args.activation, Activations{}, [&](auto activation) {
            using Activation = decltype(activation);
            if constexpr (!std::is_same<Activation, Identity>::value)
                each(
                    d_h, [&](C d, C saved) { return d * derivative<Activation>(saved, args.saved_is_argument); },
                    read<n>(args.saved, i, j));
        });
        each(d_t, [](C d, C of_h, C of_t, C of_x) { return gate_slope(d, of_h, of_t, of_x); }, h, t, x);
        each(d_x, [](C d, C of_t) { return d * (C(1) - of_t); }, t);
        write<n>(d_h, args.d_h, i, j);
        write<n>(d_t, args.d_t, i, j);
        write<n>(d_x, args.d_x, i, j);
    }
};

template <class T>
struct Dropout {
    DropoutArgs<T> args;
    DropoutRule<Compute<T>> rule;
    // Of several columns, the first one's number is the first of a block's.
    template <int n>
    __device__ void operator()(Columns<n>, std::int64_t i, std::int64_t j) const {
        PhiloxKey key = *args.key;
        key.purpose = args.purpose;
        const std::uint64_t index =
            static_cast<std::uint64_t>(args.first_row + i) * static_cast<std::uint64_t>(args.row_columns) +
            static_cast<std::uint64_t>(args.first_column + j);
        Stretch<Compute<T>, n> multipliers;
        if constexpr (n == 1) {
            multipliers.at[0] = rule.multiplier(philox_word(key, index));
        } else {
            static_assert(n % 4 == 0, "whole blocks");
#pragma unroll
            for (int block = 0; block < n / 4; ++block) {
                std::uint32_t words[4];
                philox_block(key, (index >> 2) + block, words);
#pragma unroll
                for (int c = 0; c < 4; ++c) multipliers.at[4 * block + c] = rule.multiplier(words[c]);
            }
        }
        write<n>(multipliers, args.out, i, j);
    }
};

}  // namespace

template <class T>
void gate(const GateArgs<T>& args) {
    for_stretches(args.rows, args.columns, on_boundaries(args.h, args.t, args.x, args.mask, args.out, args.wide),
                  Gate<T>{args});
}
template <class T>
void gate_backward(const GateBackwardArgs<T>& args) {
    for_stretches(args.rows, args.columns,
                  on_boundaries(args.gradient, args.h, args.t, args.x, args.saved, args.d_h, args.d_t, args.d_x),
                  GateBackward<T>{args});
}
template <class T>
void dropout(const DropoutArgs<T>& args) {
    constexpr std::int64_t block = 4;  // of numbers that are made together
    for_stretches(args.rows, args.columns,
                  args.row_columns % block == 0 && args.first_column % block == 0 && on_boundary(args.out),
                  Dropout<T>{args, DropoutRule<Compute<T>>(args.probability)});
}

#define RC_INSTANTIATE(T)                                    \
    template void gate(const GateArgs<T>&);                  \
    template void gate_backward(const GateBackwardArgs<T>&); \
    template void dropout(const DropoutArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

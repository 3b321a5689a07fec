// Gates, dropout masks and losses.
#include "kernels/columns.h"
#include "kernels/cuda/elements.cuh"
#include "math/activation.h"
#include "math/gate.h"
#include "math/random.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct Gate {
    GateArgs<T> args;
    __device__ void operator()(std::int64_t i, std::int64_t j) const {
        Compute<T> a = gated(read(args.h, i, j), read(args.t, i, j), read(args.x, i, j));
        if (args.mask.data) a = a * read(args.mask, i, j);
        write_both<1>({{a}}, args.out, args.wide, i, j);
    }
};

template <class T>
struct GateBackward {
    GateBackwardArgs<T> args;
    __device__ void operator()(std::int64_t i, std::int64_t j) const {
        using C = Compute<T>;
        const C g = read(args.gradient, i, j), h = read(args.h, i, j), t = read(args.t, i, j), x = read(args.x, i, j);
        C d_h = g * t;
        visit_type(args.activation, Activations{}, [&](auto activation) {
            using Activation = decltype(activation);
            if constexpr (!std::is_same<Activation, Identity>::value)
                d_h = d_h * derivative<Activation>(read(args.saved, i, j), args.saved_is_argument);
        });
        write(d_h, args.d_h, i, j);
        write(gate_slope(g, h, t, x), args.d_t, i, j);
        write(g * (C(1) - t), args.d_x, i, j);
    }
};

template <class T>
struct Dropout {
    DropoutArgs<T> args;
    DropoutRule<Compute<T>> rule;
    __device__ void operator()(std::int64_t i, std::int64_t j) const {
        PhiloxKey key = *args.key;
        key.purpose = args.purpose;
        const std::uint64_t index =
            static_cast<std::uint64_t>(args.first_row + i) * static_cast<std::uint64_t>(args.columns) +
            static_cast<std::uint64_t>(j);
        write<Compute<T>>(rule.multiplier(philox_word(key, index)), args.out, i, j);
    }
};

// A thread has a whole row, as the formulas do.
template <class T>
struct Loss {
    LossArgs<T> args;
    __device__ void operator()(std::int64_t i, std::int64_t) const {
        visit_type(args.loss, Losses{}, [&](auto rule) { loss_of_row<decltype(rule)>(args, i); });
        const Compute<T>* gradient = gradient_row(args, i);
        if (!computes_itself<T> && gradient)
            for (std::int64_t j = 0; j < args.columns; ++j) write(gradient[j], args.gradient, i, j);
    }
};

}  // namespace

template <class T>
void gate(const GateArgs<T>& args) {
    for_elements(args.rows, args.columns, Gate<T>{args});
}
template <class T>
void gate_backward(const GateBackwardArgs<T>& args) {
    for_elements(args.rows, args.columns, GateBackward<T>{args});
}
template <class T>
void dropout(const DropoutArgs<T>& args) {
    for_elements(args.rows, args.columns, Dropout<T>{args, DropoutRule<Compute<T>>(args.probability)});
}
template <class T>
void loss(const LossArgs<T>& args) {
    for_elements(args.rows, 1, Loss<T>{args}, 32);
}

#define RC_INSTANTIATE(T)                                    \
    template void gate(const GateArgs<T>&);                  \
    template void gate_backward(const GateBackwardArgs<T>&); \
    template void dropout(const DropoutArgs<T>&);            \
    template void loss(const LossArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

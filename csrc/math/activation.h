// Activations: each formula and its derivative once, for host and device, scalars and vectors. Constants are PyTorch's.
//
// `derivative` takes what a network keeps: the output a, or the argument z where `needs_argument` says so.
#pragma once

#include "math/functions.h"
#include "math/names.h"

namespace resnetcore {

struct Identity {
    static constexpr const char* name = "identity";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return z;
    }
    template <class T>
    static RC_HD T derivative(T) {
        return T(1);
    }
};

struct Relu {  // NaN is not ≤ 0 and so passes through; the derivative at 0 is 0
    static constexpr const char* name = "relu";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return positive_part(z);
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return select(a <= T(0), T(0), T(1));
    }
};

struct LeakyRelu {
    static constexpr const char* name = "leaky_relu";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return select(z <= T(0), z * T(0.01), z);
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return select(a <= T(0), T(0.01), T(1));
    }
};

struct Elu {  // Clevert et al. 2016, α = 1
    static constexpr const char* name = "elu";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return select(z <= T(0), expm1(z), z);
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return select(a <= T(0), a + T(1), T(1));
    }
};

struct Sigmoid {
    static constexpr const char* name = "sigmoid";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return T(1) / (T(1) + exp(-z));
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return a * (T(1) - a);
    }
};

struct Tanh {
    static constexpr const char* name = "tanh";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return tanh(z);
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return T(1) - a * a;
    }
};

struct Gelu {  // Hendrycks & Gimpel 2016, exact: z·Φ(z)
    static constexpr const char* name = "gelu";
    static constexpr bool needs_argument = true;
    template <class T>
    static RC_HD T phi(T z) {
        return T(0.5) * (T(1) + erf(z * T(0.70710678118654752440)));
    }
    template <class T>
    static RC_HD T forward(T z) {
        return z * phi(z);
    }
    template <class T>
    static RC_HD T derivative(T z) {
        const T density = exp(z * z * T(-0.5)) * T(0.39894228040143267794);
        return phi(z) + z * density;
    }
};

struct Silu {
    static constexpr const char* name = "silu";
    static constexpr bool needs_argument = true;
    template <class T>
    static RC_HD T forward(T z) {
        return z / (T(1) + exp(-z));
    }
    template <class T>
    static RC_HD T derivative(T z) {
        const T s = Sigmoid::forward(z);
        return s * (T(1) + z * (T(1) - s));
    }
};

struct Softplus {  // linear above 20, as PyTorch's; 1 − e^(−a) is its derivative in terms of the output
    static constexpr const char* name = "softplus";
    static constexpr bool needs_argument = false;
    template <class T>
    static RC_HD T forward(T z) {
        return select(z > T(20), z, log1p(exp(z)));
    }
    template <class T>
    static RC_HD T derivative(T a) {
        return select(a > T(20), T(1), -expm1(-a));
    }
};

// g′ from what the layer kept. Where the argument was kept although the derivative reads the output, g is taken again.
template <class Activation, class V>
RC_HD V derivative(V saved, bool saved_is_argument) {
    if constexpr (!Activation::needs_argument)
        if (saved_is_argument) saved = Activation::forward(saved);
    return Activation::derivative(saved);
}

// gradient ⊙ g′. ReLU's takes nothing but a choice, as PyTorch's does: relu(z) is ≤ 0 where z is.
template <class Activation, class V>
RC_HD V times_derivative(V gradient, V saved, bool saved_is_argument) {
    if constexpr (std::is_same<Activation, Relu>::value)
        return select(saved <= V(0), V(0), gradient);
    else
        return gradient * derivative<Activation>(saved, saved_is_argument);
}

using Activations = TypeList<Identity, Relu, LeakyRelu, Elu, Gelu, Silu, Tanh, Sigmoid, Softplus>;

inline int activation_count() { return Activations::size; }
inline const char* activation_name(int index) { return type_name(index, Activations{}); }
inline int find_activation(std::string_view name) { return find_type(name, Activations{}); }

template <class... Types>
bool needs_argument(int index, TypeList<Types...>) {
    constexpr bool needs[] = {Types::needs_argument...};
    return needs[index];
}
inline bool activation_needs_argument(int index) { return needs_argument(index, Activations{}); }

}  // namespace resnetcore

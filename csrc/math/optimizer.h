// The optimizers' rules, each written once for host and device, scalars and vectors: PyTorch's formulas in PyTorch's
// order. State starts at zero. η > 0 is the learning rate: every rule descends.
#pragma once

#include "math/functions.h"
#include "math/names.h"

namespace resnetcore {

// Numbers of one update, the same for a whole array. Bias corrections are taken in double on the host.
template <class T>
struct Hyper {
    T lr = 0;
    T momentum = 0;
    bool nesterov = false;
    T weight_decay = 0;
    T beta1 = 0, beta2 = 0, eps = 0;
    T one_minus_beta1 = 0, one_minus_beta2 = 0;  // rounded from the double difference
    T step_size = 0;                             // lr / (1 − beta1^t)
    T root_correction = 0;                       // sqrt(1 − beta2^t)
};

struct Sgd {
    static constexpr const char* name = "sgd";
    static constexpr int states = 0;
    template <class V, class T>
    static RC_HD V apply(V w, V g, V&, V&, const Hyper<T>& h) {
        g = multiply_add(V(h.weight_decay), w, g);
        return multiply_add(V(-h.lr), g, w);
    }
};

struct Momentum {  // Sutskever et al. 2013, without dampening
    static constexpr const char* name = "momentum";
    static constexpr int states = 1;
    template <class V, class T>
    static RC_HD V apply(V w, V g, V& velocity, V&, const Hyper<T>& h) {
        g = multiply_add(V(h.weight_decay), w, g);
        velocity = multiply_add(V(h.momentum), velocity, g);
        return multiply_add(V(-h.lr), h.nesterov ? multiply_add(V(h.momentum), velocity, g) : velocity, w);
    }
};

struct Adam {  // Kingma & Ba 2015, algorithm 1; weight decay as part of the gradient
    static constexpr const char* name = "adam";
    static constexpr int states = 2;
    template <class V, class T>
    static RC_HD V descend(V w, V g, V& m, V& v, const Hyper<T>& h) {
        m = multiply_add(g - m, V(h.one_minus_beta1), m);
        v = multiply_add(v, V(h.beta2), g * g * V(h.one_minus_beta2));
        return w - V(h.step_size) * m / (sqrt(v) / V(h.root_correction) + V(h.eps));
    }
    template <class V, class T>
    static RC_HD V apply(V w, V g, V& m, V& v, const Hyper<T>& h) {
        return descend(w, multiply_add(V(h.weight_decay), w, g), m, v, h);
    }
};

struct AdamW {  // Loshchilov & Hutter 2019: decay apart from the gradient
    static constexpr const char* name = "adamw";
    static constexpr int states = 2;
    template <class V, class T>
    static RC_HD V apply(V w, V g, V& m, V& v, const Hyper<T>& h) {
        return Adam::descend(multiply_add(V(-h.lr * h.weight_decay), w, w), g, m, v, h);
    }
};

using Optimizers = TypeList<Sgd, Momentum, Adam, AdamW>;

inline int optimizer_count() { return Optimizers::size; }
inline const char* optimizer_name(int index) { return type_name(index, Optimizers{}); }
inline int find_optimizer(std::string_view name) { return find_type(name, Optimizers{}); }

template <class... Types>
int state_count(int index, TypeList<Types...>) {
    constexpr int counts[] = {Types::states...};
    return counts[index];
}
inline int optimizer_states(int index) { return state_count(index, Optimizers{}); }

}  // namespace resnetcore

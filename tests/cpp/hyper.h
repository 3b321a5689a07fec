// Numbers for an optimizer that every precision holds exactly, and the same in double.
#pragma once

#include "math/optimizer.h"

namespace resnetcore {

template <class C>
Hyper<C> hyper(bool nesterov) {
    Hyper<C> h;
    h.lr = C(0.0625), h.momentum = C(0.875), h.nesterov = nesterov, h.weight_decay = C(0.03125);
    h.beta1 = C(0.875), h.beta2 = C(0.96875), h.eps = C(0.0009765625);
    h.one_minus_beta1 = C(0.125), h.one_minus_beta2 = C(0.03125);
    h.step_size = C(0.25), h.root_correction = C(0.5);
    return h;
}
template <class C>
Hyper<double> widened(const Hyper<C>& h) {
    return {h.lr,  h.momentum,        h.nesterov,        h.weight_decay, h.beta1,          h.beta2,
            h.eps, h.one_minus_beta1, h.one_minus_beta2, h.step_size,    h.root_correction};
}

}  // namespace resnetcore

// The transform gate of a highway layer (Srivastava et al. 2015, equation 3), for host and device, scalars and vectors.
#pragma once

#include "math/functions.h"

namespace resnetcore {

template <class V>
RC_HD V gated(V h, V t, V x) {
    return multiply_add(t, h, (V(1) - t) * x);
}

// From G = ∂E/∂a: ∂E/∂(the gate's argument), the gate being a sigmoid.
template <class V>
RC_HD V gate_slope(V gradient, V h, V t, V x) {
    return gradient * (h - x) * t * (V(1) - t);
}

}  // namespace resnetcore

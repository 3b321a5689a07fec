// The optimizers' rules, each written once for host and device, scalars and vectors. State starts at zero.
#pragma once

#include "math/functions.h"

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
    T step_size = 0;       // lr / (1 − beta1^t)
    T root_correction = 0;  // sqrt(1 − beta2^t)
};

}  // namespace resnetcore

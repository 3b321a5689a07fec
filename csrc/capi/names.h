// The numbers of resnetcore.h are the order of these names, whatever the order of the lists in csrc/math.
#pragma once

#include <string>

#include "base/error.h"
#include "capi/resnetcore.h"
#include "math/activation.h"
#include "math/loss.h"

namespace resnetcore::capi {

inline constexpr const char* activation_names[] = {"identity", "relu", "leaky_relu", "elu",     "gelu",
                                                   "silu",     "tanh", "sigmoid",    "softplus"};
inline constexpr const char* loss_names[] = {"cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"};

// The name of a number, or null.
template <std::size_t count>
const char* name_of(std::int32_t number, const char* const (&names)[count]) {
    return number >= 0 && number < static_cast<std::int32_t>(count) ? names[number] : nullptr;
}

// Throws ValueError for a number that is none.
inline int activation_index(rc_activation activation, const char* operation) {
    const char* name = name_of(activation, activation_names);
    if (!name) throw ValueError(std::string(operation) + ": there is no activation " + std::to_string(activation));
    return find_activation(name);
}

inline int loss_index(rc_loss loss, const char* operation) {
    const char* name = name_of(loss, loss_names);
    if (!name) throw ValueError(std::string(operation) + ": there is no loss " + std::to_string(loss));
    return find_loss(name);
}

}  // namespace resnetcore::capi

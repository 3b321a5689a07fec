// The block's functions (functional/residual.h) on any device, from the host's arrays to the host's arrays.
#pragma once

#include "functional/residual.h"

namespace resnetcore {

// Throws DeviceError, beginning with `operation`, for longer lists or wider matrices than the device's kernels take.
template <class T>
void residual_forward_on(Device& device, const ResidualArguments<T>& arguments, MutableRows<T> out,
                         MutableRows<Compute<T>> wide, const char* operation);
template <class T>
void residual_backward_on(Device& device, const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                          const ResidualGradients<T>& out, const char* operation);

#define RC_DECLARE(T)                                                                                 \
    extern template void residual_forward_on(Device&, const ResidualArguments<T>&, MutableRows<T>,    \
                                             MutableRows<Compute<T>>, const char*);                   \
    extern template void residual_backward_on(Device&, const ResidualArguments<T>&, Rows<T>, Rows<T>, \
                                              const ResidualGradients<T>&, const char*);
RC_DECLARE(float)
RC_DECLARE(double)
RC_DECLARE(bfloat16)
#undef RC_DECLARE

}  // namespace resnetcore

// The block's functions (functional/residual.h) on any device, from the host's arrays to the host's arrays.
#pragma once

#include "functional/residual.h"

namespace resnetcore {

// Throws DeviceError as `check_fits` does.
template <class T>
void residual_forward_on(Device& device, const ResidualArguments<T>& arguments, MutableRows<T> out,
                         MutableRows<Compute<T>> wide, const char* operation);
template <class T>
void residual_backward_on(Device& device, const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                          const ResidualGradients<T>& out, const char* operation);

extern template void residual_forward_on(Device&, const ResidualArguments<float>&, MutableRows<float>,
                                         MutableRows<float>, const char*);
extern template void residual_forward_on(Device&, const ResidualArguments<double>&, MutableRows<double>,
                                         MutableRows<double>, const char*);
extern template void residual_forward_on(Device&, const ResidualArguments<bfloat16>&, MutableRows<bfloat16>,
                                         MutableRows<float>, const char*);
extern template void residual_backward_on(Device&, const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                          const ResidualGradients<float>&, const char*);
extern template void residual_backward_on(Device&, const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                          const ResidualGradients<double>&, const char*);
extern template void residual_backward_on(Device&, const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                          const ResidualGradients<bfloat16>&, const char*);

}  // namespace resnetcore

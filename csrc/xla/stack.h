// A stack of layers as XLA FFI handlers on the CPU: one call forward, one back.
//
// Attributes: `topology` is the text of files/topology_text.h; `training`, `input_gradient` and `taped` are 0 or 1;
// `tape_layout` is that of the version that traced the call.
// Everything is of Compute<T>, T being the topology's dtype. Values are all parameters and buffers of the stack in the
// order of its ParameterList, matrices as (in, out). A tape is what forward leaves for backward, a result like others:
// XLA may keep it, drop it, go back twice, or forward again.
#pragma once

#include "xla/ffi.h"

namespace resnetcore::xla {

// x; the dropout masks' seed, two uint32; values. Results: the outputs; the tape, in bytes, where `taped`; and in
// training the running statistics carried on, in order.
Status* stack_forward(CallFrame* frame);

// ∂E/∂outputs; the tape; x, the seed and the values of the forward pass. Results: ∂E/∂x where `input_gradient`, and the
// gradients of the values that are trained, in order.
Status* stack_backward(CallFrame* frame);

}  // namespace resnetcore::xla

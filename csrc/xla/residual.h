// The block as XLA FFI handlers, for float32, float64 and bfloat16 on the CPU.
//
// Attributes: `sources` and `identity` count the terms, `activation` is a name. Operands of the block, in this order:
// sources, weights, identity terms, and the bias if one argument is left.
#pragma once

#include "xla/ffi.h"

namespace resnetcore::xla {

// The operands; a result.
Status* residual_forward(CallFrame* frame);

// ∂E/∂a, a, the operands. Results: of the sources (none where the attribute `source_gradients` is 0), of the weights,
// δ, and of the bias if there is one; those of weights and bias are of Compute<T>.
Status* residual_backward(CallFrame* frame);

}  // namespace resnetcore::xla

// The module's kernels, a table for each type: what module.cu hands out.
#pragma once

#include "kernels/ops.h"

namespace resnetcore {
namespace cuda {

const KernelTable<float>* f32();
const KernelTable<double>* f64();
const KernelTable<bfloat16>* bf16();
const KernelTable<bfloat16x2>* bf16x2();

}  // namespace cuda
}  // namespace resnetcore

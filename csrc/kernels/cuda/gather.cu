// Arrays of other libraries as the kernels read them: chosen rows, dense, of the type that a network computes with. The
// host has NumPy for it.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/status.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class From, class To>
struct Gather {
    GatherArgs args;
    __device__ void operator()(std::int64_t i, std::int64_t j) const {
        const std::int64_t row = args.chosen ? args.chosen[i] : i;
        const From x = static_cast<const From*>(args.from)[row * args.row_stride + j * args.column_stride];
        static_cast<To*>(args.to)[i * args.columns + j] = static_cast<To>(read(x));
    }
};

template <class To>
void gather_as(const GatherArgs& args) {
    switch (args.from_type) {
        case GatherArgs::f32:
            return for_elements(args.rows, args.columns, Gather<float, To>{args});
        case GatherArgs::f64:
            return for_elements(args.rows, args.columns, Gather<double, To>{args});
        case GatherArgs::bf16:
            return for_elements(args.rows, args.columns, Gather<bfloat16, To>{args});
    }
}

}  // namespace

int gather(const GatherArgs* args) {
    if (args->to_type == GatherArgs::f64)
        gather_as<double>(*args);
    else
        gather_as<float>(*args);
    return report(cudaGetLastError(), "cudaLaunchKernel");
}

}  // namespace cuda
}  // namespace resnetcore

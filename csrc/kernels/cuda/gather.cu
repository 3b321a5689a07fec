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
    template <int n>
    __device__ void operator()(Columns<n>, std::int64_t i, std::int64_t j) const {
        const std::int64_t row = args.chosen ? args.chosen[i] : i;
        const auto x = read<n>(static_cast<const From*>(args.from) + row * args.row_stride + j * args.column_stride);
        Stretch<To, n> converted;
#pragma unroll
        for (int c = 0; c < n; ++c) converted.at[c] = static_cast<To>(x.at[c]);
        write<n>(converted, static_cast<To*>(args.to) + i * args.columns + j);
    }
};

template <class From>
struct GatherLabel {
    GatherArgs args;
    __device__ void operator()(std::int64_t i, std::int64_t j) const {
        const std::int64_t row = args.chosen ? args.chosen[i] : i;
        static_cast<std::int64_t*>(args.to)[i * args.columns + j] =
            static_cast<const From*>(args.from)[row * args.row_stride + j * args.column_stride];
    }
};

template <class From, class To>
void gather_from(const GatherArgs& args) {
    const Rows<From> from{static_cast<const From*>(args.from), args.row_stride};
    const Rows<To> to{static_cast<const To*>(args.to), args.columns};
    for_stretches(args.rows, args.columns, args.column_stride == 1 && on_boundaries(from, to), Gather<From, To>{args});
}
template <class To>
void gather_as(const GatherArgs& args) {
    switch (args.from_type) {
        case GatherArgs::f32:
            return gather_from<float, To>(args);
        case GatherArgs::f64:
            return gather_from<double, To>(args);
        case GatherArgs::bf16:
            return gather_from<bfloat16, To>(args);
        case GatherArgs::i32:
        case GatherArgs::i64:
            return;  // labels
    }
}

void gather_labels(const GatherArgs& args) {
    if (args.from_type == GatherArgs::i32)
        for_elements(args.rows, args.columns, GatherLabel<std::int32_t>{args});
    else
        for_elements(args.rows, args.columns, GatherLabel<std::int64_t>{args});
}

}  // namespace

int gather(const GatherArgs* args) {
    if (args->to_type == GatherArgs::i64)
        gather_labels(*args);
    else if (args->to_type == GatherArgs::f64)
        gather_as<double>(*args);
    else
        gather_as<float>(*args);
    return report(cudaGetLastError(), "cudaLaunchKernel");
}

}  // namespace cuda
}  // namespace resnetcore

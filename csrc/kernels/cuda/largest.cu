// The largest magnitude of an array.
//
// Invariant: the result does not depend on the order in which blocks run: maxima are of integers.
#include "kernels/cuda/largest.cuh"

namespace resnetcore {
namespace cuda {
namespace {

// `whole` as in `visit_stretches`.
template <class T>
__global__ void __launch_bounds__(element_threads)
    largest_kernel(const __grid_constant__ LargestArgs<T> args, bool whole) {
    LargestResult<T> largest;
    visit_stretches(args.rows, args.columns, whole,
                    [&](auto n, std::int64_t i, std::int64_t j) { largest.add(read<n>(args.x, i, j)); });
    largest.template keep_of_block<element_threads>(args.into);
}

}  // namespace

template <class T>
void largest(const LargestArgs<T>& args) {
    const bool whole = on_boundary(args.x);
    launch_measuring<largest_kernel<T>>(args.into, args.rows, args.columns, whole, args, whole);
}

#define RC_INSTANTIATE(T) template void largest(const LargestArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

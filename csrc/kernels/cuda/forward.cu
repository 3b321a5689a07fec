// residual_forward: sums, then bias, skips, a branch and the activation.
#include "kernels/cuda/sources.cuh"
#include "math/activation.h"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct Forward {
    ForwardArgs<T> args;

    template <int most>
    __device__ __forceinline__ void finish(Compute<T> z, const Terms<T, most>& terms, std::int64_t i,
                                           std::int64_t j) const {
        if (args.bias) z = z + args.bias[j];
        z = terms.add_identities(z, i, j);
        if (args.branch.z.data) z = z + branch(i, j);
        if (args.argument.data) write(z, args.argument, i, j);
        Compute<T> a = z;
        visit_type(args.activation, Activations{}, [&](auto g) { a = decltype(g)::forward(z); });
        if (args.mask.data) a = a * read(args.mask, i, j);
        write_both(a, args.out, args.wide, i, j);
    }

    __device__ __forceinline__ Compute<T> branch(std::int64_t i, std::int64_t j) const {
        const Branch<T>& b = args.branch;
        Compute<T> z = read(b.z, i, j);
        if (b.center) z = normalise(z, b.center[j], b.scale[j], b.shift[j]);
        if (b.mask.data) z = z * read(b.mask, i, j);
        return z;
    }
};

}  // namespace

template <class T>
void forward(const ForwardArgs<T>& args) {
    launch_sum<T>(Forward<T>{args});
}

#define RC_INSTANTIATE(T) template void forward(const ForwardArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

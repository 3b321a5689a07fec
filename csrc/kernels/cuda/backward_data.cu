// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative.
#include "kernels/cuda/sources.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct BackwardData {
    BackwardDataArgs<T> args;

    template <int most>
    __device__ __forceinline__ void finish(Compute<T> g, const Terms<T, most>& terms, std::int64_t i,
                                           std::int64_t j) const {
        g = terms.add_identities(g, i, j);
        if (args.mask.data) g = g * read(args.mask, i, j);
        visit_type(args.activation, Activations{}, [&](auto activation) {
            using Activation = decltype(activation);
            if constexpr (!std::is_same<Activation, Identity>::value)
                g = g * derivative<Activation>(read(args.saved, i, j), args.saved_is_argument);
        });
        write(g, args.out, i, j);
    }
};

}  // namespace

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    launch_sum<T>(BackwardData<T>{args});
}

#define RC_INSTANTIATE(T) template void backward_data(const BackwardDataArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

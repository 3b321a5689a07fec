// residual_backward_data: the same sums over the consumers' δ and transposed weights, then skip gradients, dropout and
// the activation's derivative.
#include "kernels/cuda/hopper/sum.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct BackwardData {
    BackwardDataArgs<T> args;

    bool is_on_boundaries() const {
        return are_on_boundaries(args.identity, args.n_identity) && on_boundaries(args.mask, args.saved, args.out);
    }

    // n neighbours of row i, from column j on.
    template <int n, int most>
    __device__ __forceinline__ void finish(Stretch<Compute<T>, n> g, const Terms<T, most>& terms, std::int64_t i,
                                           std::int64_t j, LargestResult<T>& largest) const {
        terms.add_identities(g, i, j);
        if (args.mask.data) each(g, Times(), read<n>(args.mask, i, j));
        visit_type(args.activation, Activations{}, [&](auto activation) {
            using Activation = decltype(activation);
            if constexpr (!std::is_same<Activation, Identity>::value)
                each(
                    g,
                    [&](Compute<T> x, Compute<T> saved) {
                        return x * derivative<Activation>(saved, args.saved_is_argument);
                    },
                    read<n>(args.saved, i, j));
        });
        write<n>(g, args.out, i, j);
        largest.add(g);
    }
};

}  // namespace

template <class T>
void backward_data(const BackwardDataArgs<T>& args) {
    const BackwardData<T> epilogue{args};
    if (!hopper::launch_sum<T>(epilogue)) launch_sum<T>(epilogue);
}

#define RC_INSTANTIATE(T) template void backward_data(const BackwardDataArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

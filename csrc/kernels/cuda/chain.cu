// Steps of a chain in one launch, where there is a path that takes them; else none.
#include "kernels/cuda/hopper/chain.cuh"

namespace resnetcore {
namespace cuda {

template <class T>
std::int64_t chain(const ChainArgs<T>& args) {
    return hopper::launch_chain(args);
}

template <class T>
std::int64_t longest_chain() {
    return std::is_same<T, bfloat16>::value ? hopper::longest_chain() : 0;
}

template <class T>
bool chains_norms() {
    return std::is_same<T, bfloat16>::value && hopper::chains_norms();
}

template <class T>
std::int64_t pass_words(std::int64_t rows, std::int64_t columns) {
    return std::is_same<T, bfloat16>::value ? hopper::pass_words(rows, columns) : 0;
}

#define RC_INSTANTIATE(T)                             \
    template std::int64_t chain(const ChainArgs<T>&); \
    template std::int64_t longest_chain<T>();         \
    template bool chains_norms<T>();                  \
    template std::int64_t pass_words<T>(std::int64_t, std::int64_t);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

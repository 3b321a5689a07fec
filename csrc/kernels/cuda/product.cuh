// The product of every kernel that has one: a block's tile of sums, over steps that fetch their terms from wherever
// they are. One stage is multiplied while the next is fetched.
//
// Invariant: the order in which a sum's terms are added depends on their number alone, never on the tile's place, so
// that a row's result does not depend on its batch.
#pragma once

#include <type_traits>

#include "kernels/cuda/multiply_fused.cuh"
#include "kernels/cuda/multiply_mma.cuh"

namespace resnetcore {
namespace cuda {

template <class T>
using Multiply = std::conditional_t<computes_itself<T>, FusedMultiply<T>, MatrixUnit<T>>;

// The stages of a product, and later its sums: threads pass them to the epilogue, which goes along rows, as memory
// does.
template <class T>
union TileMemory {
    typename Multiply<T>::Stage stages[2];
    Compute<T> sums[tile_size][tile_size + 1];
};

// total += all terms. `Steps` has: exists(), whether there is a step; advance(), to the next; a(row, term) and b(term,
// column) of the step it is at. Parts of `longest` terms are summed by themselves, and then added.
template <class T, bool a_along_terms, int longest, class Steps>
__device__ __forceinline__ void add_steps(Steps steps, TileMemory<T>& memory, Compute<T> (&total)[sums_of_thread]) {
    static_assert(longest % Multiply<T>::depth == 0, "a part is whole steps");
    Multiply<T> multiply;
    Compute<T> part[sums_of_thread] = {};
    int stage = 0, terms = 0;
    bool exists = steps.exists();
    if (exists) {
        multiply.template fetch<a_along_terms>(steps);
        multiply.template store<a_along_terms>(memory.stages[0]);
    }
    __syncthreads();
    while (exists) {
        steps.advance();
        exists = steps.exists();
        if (exists) multiply.template fetch<a_along_terms>(steps);
        Multiply<T>::multiply(memory.stages[stage], part);
        terms += Multiply<T>::depth;
        if (terms == longest || !exists) {
            terms = 0;
#pragma unroll
            for (int i = 0; i < sums_of_thread; ++i) total[i] = total[i] + part[i], part[i] = 0;
        }
        stage = 1 - stage;
        if (exists) multiply.template store<a_along_terms>(memory.stages[stage]);
        __syncthreads();
    }
}

template <class T>
__device__ __forceinline__ void share_sums(const Compute<T> (&total)[sums_of_thread], TileMemory<T>& memory) {
#pragma unroll
    for (int i = 0; i < sums_of_thread; ++i) {
        const Position p = Multiply<T>::position(i);
        memory.sums[p.row][p.column] = total[i];
    }
    __syncthreads();
}

}  // namespace cuda
}  // namespace resnetcore

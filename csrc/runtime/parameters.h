// The arrays of a network in the kernels' own layout. Invariant: `transposed` always holds the transpose of `values`.
#pragma once

#include <vector>

#include "kernels/ops.h"
#include "runtime/aligned.h"
#include "topology/parameters.h"

namespace resnetcore {

template <class T>
struct StoredParameter {
    AlignedArray<T> values;      // a matrix: packed panels; a vector: plain
    AlignedArray<T> transposed;  // a matrix: packed panels of its transpose
};

template <class T>
class ParameterStore {
public:
    ParameterStore(const ParameterList& list, const KernelTable<T>& kernels);

    T* values(int id) { return stored_[id].values.data(); }
    const T* values(int id) const { return stored_[id].values.data(); }
    T* transposed(int id) { return stored_[id].transposed.data(); }
    const T* transposed(int id) const { return stored_[id].transposed.data(); }

    // Row-major, (rows, columns), or a vector of `columns`.
    void write(int id, const T* values);
    void read(int id, T* values) const;
    // After `values` were written to directly.
    void refresh_transposed(int id);
    std::int64_t packed_elements(int id) const { return stored_[id].values.size(); }

    // An array in the layout of parameter `id`, as optimizers keep it, to and from row-major.
    void pack_like(int id, const T* row_major, T* packed) const;
    void unpack_like(int id, const T* packed, T* row_major) const;

private:
    const ParameterList& list_;
    const KernelTable<T>& kernels_;
    std::vector<StoredParameter<T>> stored_;
};

extern template class ParameterStore<float>;
extern template class ParameterStore<double>;

}  // namespace resnetcore

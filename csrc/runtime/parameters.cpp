#include "runtime/parameters.h"

#include <algorithm>

namespace resnetcore {

template <class T>
ParameterStore<T>::ParameterStore(const ParameterList& list, const KernelTable<T>& kernels)
    : list_(list), kernels_(kernels) {
    for (const Parameter& p : list.all) {
        StoredParameter<T> stored;
        if (p.is_matrix()) {
            stored.values = AlignedArray<T>(packed_size(p.rows, p.columns, kernels.panel));
            stored.transposed = AlignedArray<T>(packed_size(p.columns, p.rows, kernels.panel));
        } else {
            stored.values = AlignedArray<T>(p.columns);
        }
        stored_.push_back(std::move(stored));
    }
}

template <class T>
void ParameterStore<T>::write(int id, const T* values) {
    const Parameter& p = list_.all[id];
    pack_like(id, values, stored_[id].values.data());
    if (p.is_matrix()) kernels_.pack_transposed(p.rows, p.columns, {values, p.columns}, stored_[id].transposed.data());
}

template <class T>
void ParameterStore<T>::refresh_transposed(int id) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return;
    std::vector<T> dense(p.size());
    read(id, dense.data());
    kernels_.pack_transposed(p.rows, p.columns, {dense.data(), p.columns}, stored_[id].transposed.data());
}

template <class T>
void ParameterStore<T>::read(int id, T* values) const {
    unpack_like(id, stored_[id].values.data(), values);
}

template <class T>
void ParameterStore<T>::pack_like(int id, const T* row_major, T* packed) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.pack(p.rows, p.columns, {row_major, p.columns}, packed);
    else
        std::copy_n(row_major, p.columns, packed);
}

template <class T>
void ParameterStore<T>::unpack_like(int id, const T* packed, T* row_major) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.unpack(p.rows, p.columns, packed, {row_major, p.columns});
    else
        std::copy_n(packed, p.columns, row_major);
}

template class ParameterStore<float>;
template class ParameterStore<double>;

}  // namespace resnetcore

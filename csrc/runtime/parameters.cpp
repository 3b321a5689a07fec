#include "runtime/parameters.h"

#include <algorithm>

namespace resnetcore {

template <class T>
ParameterStore<T>::ParameterStore(const ParameterList& list, const KernelTable<T>& kernels)
    : list_(list), kernels_(kernels) {
    for (const Parameter& p : list.all) {
        StoredParameter<T> stored;
        if (p.is_matrix()) {
            stored.values = AlignedArray<Compute<T>>(packed_size(p.rows, p.columns, kernels.panel));
            stored.transposed = AlignedArray<T>(operand_size<T>(p.columns, p.rows, kernels.panel));
            if (!computes_itself<T>) stored.panels = AlignedArray<T>(operand_size<T>(p.rows, p.columns, kernels.panel));
        } else {
            stored.values = AlignedArray<Compute<T>>(p.columns);
        }
        stored_.push_back(std::move(stored));
    }
}

template <class T>
const T* ParameterStore<T>::panels(int id) const {
    if constexpr (computes_itself<T>)
        return stored_[id].values.data();
    else
        return stored_[id].panels.data();
}

template <class T>
void ParameterStore<T>::write(int id, const Compute<T>* values) {
    pack_like(id, values, stored_[id].values.data());
    pack_operands(id, values);
}

// What packs Wᵀ of W packs W of Wᵀ.
template <class T>
void ParameterStore<T>::write_forward(int id, const Compute<T>* transposed) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return write(id, transposed);
    T* panels = operands(id).panels;
    if constexpr (computes_itself<T>) panels = values(id);
    kernels_.pack_transposed(p.columns, p.rows, {transposed, p.rows}, panels);
}

template <class T>
void ParameterStore<T>::write_backward(int id, const Compute<T>* transposed) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return write(id, transposed);
    kernels_.pack_operand(p.columns, p.rows, {transposed, p.rows}, stored_[id].transposed.data());
}

template <class T>
void ParameterStore<T>::refresh_operands(int id) {
    std::vector<Compute<T>> dense(list_.all[id].size());
    read(id, dense.data());
    pack_operands(id, dense.data());
}

template <class T>
void ParameterStore<T>::pack_operands(int id, const Compute<T>* row_major) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return;
    const Rows<Compute<T>> rows{row_major, p.columns};
    kernels_.pack_transposed(p.rows, p.columns, rows, stored_[id].transposed.data());
    if (!computes_itself<T>) kernels_.pack_operand(p.rows, p.columns, rows, stored_[id].panels.data());
}

template <class T>
void ParameterStore<T>::read(int id, Compute<T>* values) const {
    unpack_like(id, stored_[id].values.data(), values);
}

template <class T>
void ParameterStore<T>::pack_like(int id, const Compute<T>* row_major, Compute<T>* packed) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.pack(p.rows, p.columns, {row_major, p.columns}, packed);
    else
        std::copy_n(row_major, p.columns, packed);
}

template <class T>
void ParameterStore<T>::unpack_like(int id, const Compute<T>* packed, Compute<T>* row_major) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.unpack(p.rows, p.columns, packed, {row_major, p.columns});
    else
        std::copy_n(packed, p.columns, row_major);
}

template class ParameterStore<float>;
template class ParameterStore<double>;
template class ParameterStore<bfloat16>;
template class ParameterStore<bfloat16x2>;

}  // namespace resnetcore

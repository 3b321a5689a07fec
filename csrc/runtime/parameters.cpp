#include "runtime/parameters.h"

#include <algorithm>

namespace resnetcore {

template <class T>
ParameterStore<T>::ParameterStore(const ParameterList& list, Device& device)
    : list_(list), device_(device), kernels_(device.kernels<T>()), staging_(device) {
    const std::int64_t panel = kernels_.panel;
    for (const Parameter& p : list.all) {
        StoredParameter<T> stored;
        if (p.is_matrix()) {
            stored.values = AlignedArray<Compute<T>>(device, packed_size(p.rows, p.columns, panel));
            stored.transposed = AlignedArray<T>(device, operand_size(kernels_, p.columns, p.rows));
            if (!computes_itself<T>) stored.panels = AlignedArray<T>(device, operand_size(kernels_, p.rows, p.columns));
        } else {
            stored.values = AlignedArray<Compute<T>>(device, p.columns);
        }
        stored_.push_back(std::move(stored));
        if (!device.is_host()) staging_.reserve(p.size());
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
    const Compute<T>* row_major = staged(id, values);
    pack(id, row_major, stored_[id].values.data());
    pack_operands(id, row_major);
}

template <class T>
void ParameterStore<T>::write_forward(int id, const Compute<T>* given, bool transposed, const PackedPart& part) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return pack(id, given, values(id));
    T* panels = operands(id).panels;
    if constexpr (computes_itself<T>) panels = values(id);
    pack_part(p.rows, p.columns, given, transposed, part, panels);
}

template <class T>
void ParameterStore<T>::write_backward(int id, const Compute<T>* given, bool transposed, const PackedPart& part) {
    const Parameter& p = list_.all[id];
    if (!p.is_matrix()) return pack(id, given, values(id));
    pack_part(p.columns, p.rows, given, !transposed, part, stored_[id].transposed.data());
}

// A part of the panels of W (inner, columns), which is given as it is or as Wᵀ: what packs Wᵀ of W packs W of Wᵀ. Its
// columns are a matrix of their own.
template <class T>
void ParameterStore<T>::pack_part(std::int64_t inner, std::int64_t columns, const Compute<T>* given, bool transposed,
                                  const PackedPart& part, T* panels) {
    const std::int64_t width = kernels_.panel, count = panel_count(columns, width);
    const std::int64_t first = count * part.number / part.count, begin = first * width;
    const std::int64_t some = std::min(count * (part.number + 1) / part.count * width, columns) - begin;
    panels += first * operand_size(kernels_, inner, width);
    const auto either = [&](auto through, auto past) { return part.past_caches && past ? past : through; };
    if (transposed)
        either(kernels_.pack_transposed, kernels_.pack_transposed_past_caches)(some, inner,
                                                                               {given + begin * inner, inner}, panels);
    else
        either(kernels_.pack_operand, kernels_.pack_operand_past_caches)(inner, some, {given + begin, columns}, panels);
}

template <class T>
void ParameterStore<T>::refresh_operands(int id) {
    staging_.reserve(list_.all[id].size());
    unpack(id, stored_[id].values.data(), staging_.data());
    pack_operands(id, staging_.data());
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
void ParameterStore<T>::read_on_device(int id, Compute<T>* values) const {
    unpack(id, stored_[id].values.data(), values);
}

template <class T>
void ParameterStore<T>::pack_like(int id, const Compute<T>* row_major, Compute<T>* packed) const {
    pack(id, staged(id, row_major), packed);
}

template <class T>
void ParameterStore<T>::unpack_like(int id, const Compute<T>* packed, Compute<T>* row_major) const {
    if (device_.is_host()) return unpack(id, packed, row_major);
    unpack(id, packed, staging_.data());
    device_.download(row_major, staging_.data(), static_cast<std::size_t>(list_.all[id].size()) * sizeof(Compute<T>));
}

// Row-major values where the kernels read them.
template <class T>
const Compute<T>* ParameterStore<T>::staged(int id, const Compute<T>* values) const {
    if (device_.is_host()) return values;
    device_.upload(staging_.data(), values, static_cast<std::size_t>(list_.all[id].size()) * sizeof(Compute<T>));
    return staging_.data();
}

template <class T>
void ParameterStore<T>::pack(int id, const Compute<T>* row_major, Compute<T>* packed) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.pack(p.rows, p.columns, {row_major, p.columns}, packed);
    else
        device_.copy(packed, row_major, static_cast<std::size_t>(p.columns) * sizeof(Compute<T>));
}

template <class T>
void ParameterStore<T>::unpack(int id, const Compute<T>* packed, Compute<T>* row_major) const {
    const Parameter& p = list_.all[id];
    if (p.is_matrix())
        kernels_.unpack(p.rows, p.columns, packed, {row_major, p.columns});
    else
        device_.copy(row_major, packed, static_cast<std::size_t>(p.columns) * sizeof(Compute<T>));
}

template class ParameterStore<float>;
template class ParameterStore<double>;
template class ParameterStore<bfloat16>;
template class ParameterStore<bfloat16x2>;

}  // namespace resnetcore

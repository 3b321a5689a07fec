// The arrays of a network in the kernels' own layout. Invariant: the operands always hold what `values` do.
#pragma once

#include <vector>

#include "kernels/ops.h"
#include "runtime/aligned.h"
#include "topology/parameters.h"

namespace resnetcore {

template <class T>
struct StoredParameter {
    AlignedArray<Compute<T>> values;  // a matrix: packed panels; a vector: plain
    AlignedArray<T> panels,
        transposed;  // a matrix's operands (kernels/ops.h); `panels` where T does not compute itself
};

// Which of a matrix's panels are packed: one of so many parts of them; a vector is one part. `past_caches`: to memory
// that is too large for them.
struct PackedPart {
    std::int64_t number = 0, count = 1;
    bool past_caches = false;
};

template <class T>
class ParameterStore {
public:
    ParameterStore(const ParameterList& list, Device& device);

    Compute<T>* values(int id) { return stored_[id].values.data(); }
    const Compute<T>* values(int id) const { return stored_[id].values.data(); }
    Operands<T> operands(int id) { return {stored_[id].panels.data(), stored_[id].transposed.data()}; }
    // What a product with the matrix reads, and one with its transpose.
    const T* panels(int id) const;
    const T* transposed(int id) const { return stored_[id].transposed.data(); }

    // Row-major, (rows, columns), or a vector of `columns`; of the host's. Nothing is asked for that could fail.
    void write(int id, const Compute<T>* values);
    void read(int id, Compute<T>* values) const;
    void read_on_device(int id, Compute<T>* values) const;  // into memory of the device
    // The halves of `write`, of values in memory of the device, for a store that is filled anew for each pass: what
    // forward reads of it, and what backward does. A matrix may be given as (columns, rows), `transposed`; a vector is
    // the same to both. `fill_by_halves` comes first: while the halves are filled `apart`, they may be of different
    // moments, and nobody reads one beside the other.
    void fill_by_halves(bool apart) { by_halves_ = apart; }
    bool by_halves() const { return by_halves_; }
    void write_forward(int id, const Compute<T>* given, bool transposed, const PackedPart& part);
    void write_backward(int id, const Compute<T>* given, bool transposed, const PackedPart& part);
    // After `values` were written to directly.
    void refresh_operands(int id);
    std::int64_t packed_elements(int id) const { return stored_[id].values.size(); }

    // An array in the layout of parameter `id`, as optimizers keep it, from and to row-major values of the host's.
    void pack_like(int id, const Compute<T>* row_major, Compute<T>* packed) const;
    void unpack_like(int id, const Compute<T>* packed, Compute<T>* row_major) const;

private:
    const Compute<T>* staged(int id, const Compute<T>* values) const;
    void pack(int id, const Compute<T>* row_major, Compute<T>* packed) const;
    void unpack(int id, const Compute<T>* packed, Compute<T>* row_major) const;
    void pack_operands(int id, const Compute<T>* row_major);
    void pack_part(std::int64_t inner, std::int64_t columns, const Compute<T>* given, bool transposed,
                   const PackedPart& part, T* panels);

    const ParameterList& list_;
    Device& device_;
    const KernelTable<T>& kernels_;
    mutable AlignedArray<Compute<T>> staging_;  // row-major values of one parameter, in the device's memory
    std::vector<StoredParameter<T>> stored_;
    bool by_halves_ = false;
};

extern template class ParameterStore<float>;
extern template class ParameterStore<double>;
extern template class ParameterStore<bfloat16>;
extern template class ParameterStore<bfloat16x2>;

}  // namespace resnetcore

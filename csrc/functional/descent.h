// The article's rule of update of one weight or bias, on any device: on the host `descend` (functional/residual.h), on
// another what it does there.
#pragma once

#include "functional/residual.h"
#include "math/optimizer.h"
#include "runtime/aligned.h"

namespace resnetcore {

// On a device that is not the host, its rows or columns are contiguous.
template <class T>
class Descent {
public:
    // Makes room: everything that can fail for lack of memory is done here.
    Descent(Device& device, const Strided<T>& w, double lr);

    // To be filled: (rows, columns), dense.
    MutableRows<Compute<T>> gradient() { return {gradient_.data(), w_.columns}; }
    // w ← w − η·gradient, rounded to T once.
    void step();

private:
    bool has_contiguous_rows() const { return w_.column_stride == 1 || w_.columns == 1; }

    Device& device_;
    const Strided<T> w_;
    const double lr_;
    AlignedArray<Compute<T>> gradient_, dense_, transposed_;  // the host needs the first alone
    AlignedArray<Hyper<Compute<T>>> hyper_;
};

extern template class Descent<float>;
extern template class Descent<double>;
extern template class Descent<bfloat16>;

}  // namespace resnetcore

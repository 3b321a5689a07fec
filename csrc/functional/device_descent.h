// The article's rule of update on a device that is not the host: what `descend` (functional/residual.h) does there.
#pragma once

#include "functional/residual.h"
#include "math/optimizer.h"
#include "runtime/aligned.h"

namespace resnetcore {

// Of one weight or bias, whose rows or columns are contiguous.
template <class T>
class DeviceDescent {
public:
    // Makes room: everything that can fail for lack of memory is done here.
    DeviceDescent(Device& device, const Strided<T>& w, double lr);

    // To be filled: (rows, columns), dense.
    MutableRows<Compute<T>> gradient() { return {gradient_.data(), w_.columns}; }
    // w ← w − η·gradient, rounded to T once.
    void step();

private:
    bool has_contiguous_rows() const { return w_.column_stride == 1 || w_.columns == 1; }

    Device& device_;
    const Strided<T> w_;
    AlignedArray<Compute<T>> gradient_, dense_, transposed_;
    AlignedArray<Hyper<Compute<T>>> hyper_;
};

extern template class DeviceDescent<float>;
extern template class DeviceDescent<double>;
extern template class DeviceDescent<bfloat16>;

}  // namespace resnetcore

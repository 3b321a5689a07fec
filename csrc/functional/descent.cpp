#include "functional/descent.h"

#include "runtime/gathered.h"

namespace resnetcore {

template <class T>
Descent<T>::Descent(Device& device, const Strided<T>& w, double lr)
    : device_(device),
      w_(w),
      lr_(lr),
      gradient_(device, w.rows * w.columns),
      dense_(device),
      transposed_(device),
      hyper_(device) {
    if (device.is_host()) return;
    dense_.reserve(w.rows * w.columns);
    if (!has_contiguous_rows()) transposed_.reserve(w.rows * w.columns);
    hyper_.reserve(1);
    Hyper<Compute<T>> hyper;
    hyper.lr = static_cast<Compute<T>>(lr);
    device_.upload(hyper_.data(), &hyper, sizeof hyper);
}

template <class T>
void Descent<T>::step() {
    if (device_.is_host()) return descend(w_, gradient_.data(), lr_);
    gather_strided(device_, w_.rows, w_.columns, w_.data, w_.row_stride, w_.column_stride, dense_.data());
    UpdateVectorsArgs<Compute<T>> args;
    args.vectors[args.count++] = {w_.rows * w_.columns, gradient_.data(), {dense_.data()}, hyper_.data()};
    args.optimizer = find_optimizer(Sgd::name);
    device_.template kernels<Compute<T>>().update_vectors(args);
    const auto store = device_.template kernels<T>().narrow;
    if (has_contiguous_rows())
        return store(w_.rows, w_.columns, {dense_.data(), w_.columns}, {w_.data, w_.row_stride}, nullptr);
    gather_strided(device_, w_.columns, w_.rows, dense_.data(), 1, w_.columns, transposed_.data());
    store(w_.columns, w_.rows, {transposed_.data(), w_.rows}, {w_.data, w_.column_stride}, nullptr);
}

template class Descent<float>;
template class Descent<double>;
template class Descent<bfloat16>;

}  // namespace resnetcore

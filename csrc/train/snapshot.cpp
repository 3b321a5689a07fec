#include "train/snapshot.h"

namespace resnetcore {

template <class T>
template <class Visit>
void Snapshot<T>::visit(Visit visit) const {
    const auto& all = model_.parameters().all;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const int id = static_cast<int>(i);
        const std::int64_t size = model_.store().packed_elements(id);
        visit(all[i], model_.store().values(id), size);
        for (int state = 0; all[i].trained && state < state_.arrays(); ++state)
            visit(all[i], state_.array(id, state), size);
    }
}

template <class T>
Snapshot<T>::Snapshot(Model<T>& model, OptimizerState<T>& state)
    : model_(model), state_(state), found_(model.device()) {
    visit([&](const Parameter&, const Compute<T>* values, std::int64_t size) {
        arrays_.emplace_back(model.device(), size);
        model.device().copy(arrays_.back().data(), values, arrays_.back().bytes());
    });
    found_.reserve(static_cast<std::int64_t>(arrays_.size()));
}

template <class T>
void Snapshot<T>::restore() {
    std::size_t next = 0;
    visit([&](const Parameter&, Compute<T>* values, std::int64_t) {
        model_.device().copy(values, arrays_[next].data(), arrays_[next].bytes());
        ++next;
    });
    for (std::size_t id = 0; id < model_.parameters().all.size(); ++id)
        model_.store().refresh_operands(static_cast<int>(id));
    model_.device().synchronize();
}

template <class T>
std::string Snapshot<T>::first_overflow() {
    Device& device = model_.device();
    device.clear(found_.data(), found_.bytes());
    std::size_t next = 0;
    visit([&](const Parameter&, const Compute<T>* values, std::int64_t size) {
        model_.kernels().overflowed({size, arrays_[next].data(), values, found_.data() + next});
        ++next;
    });
    std::vector<std::int32_t> found(arrays_.size());
    device.download(found.data(), found_.data(), found_.bytes());
    std::string name;
    next = 0;
    visit([&](const Parameter& p, const Compute<T>*, std::int64_t) {
        if (found[next++] && name.empty()) name = p.name;
    });
    return name;
}

template class Snapshot<float>;
template class Snapshot<double>;
template class Snapshot<bfloat16>;
template class Snapshot<bfloat16x2>;

}  // namespace resnetcore

#include "train/snapshot.h"

#include <algorithm>
#include <cmath>

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
Snapshot<T>::Snapshot(Model<T>& model, OptimizerState<T>& state) : model_(model), state_(state) {
    visit([&](const Parameter&, const Compute<T>* values, std::int64_t size) {
        arrays_.emplace_back(values, values + size);
    });
}

template <class T>
void Snapshot<T>::restore() {
    std::size_t next = 0;
    visit([&](const Parameter&, Compute<T>* values, std::int64_t) {
        std::copy(arrays_[next].begin(), arrays_[next].end(), values);
        ++next;
    });
    for (std::size_t id = 0; id < model_.parameters().all.size(); ++id)
        model_.store().refresh_operands(static_cast<int>(id));
}

template <class T>
std::string Snapshot<T>::first_overflow() const {
    std::string found;
    std::size_t next = 0;
    visit([&](const Parameter& p, const Compute<T>* values, std::int64_t size) {
        const std::vector<Compute<T>>& before = arrays_[next++];
        for (std::int64_t i = 0; found.empty() && i < size; ++i)
            if (!std::isfinite(values[i]) && std::isfinite(before[i])) found = p.name;
    });
    return found;
}

template class Snapshot<float>;
template class Snapshot<double>;
template class Snapshot<bfloat16>;
template class Snapshot<bfloat16x2>;

}  // namespace resnetcore

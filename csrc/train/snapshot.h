// All that an update changes, copied: for the rare step that may overflow, which must leave the last good weights.
#pragma once

#include <string>
#include <vector>

#include "train/model.h"
#include "train/optimizer_state.h"

namespace resnetcore {

template <class T>
class Snapshot {
public:
    // The model is held by the caller, here and below.
    Snapshot(Model<T>& model, OptimizerState<T>& state);
    void restore();
    // The name of the first parameter that has become NaN or infinite since, or its optimizer state has; "" if none
    // has.
    std::string first_overflow();

private:
    // Visits every array: parameter, first element, number of elements.
    template <class Visit>
    void visit(Visit visit) const;

    Model<T>& model_;
    OptimizerState<T>& state_;
    std::vector<AlignedArray<Compute<T>>> arrays_;
    AlignedArray<std::int32_t> found_;  // by array
};

extern template class Snapshot<float>;
extern template class Snapshot<double>;
extern template class Snapshot<bfloat16>;
extern template class Snapshot<bfloat16x2>;

}  // namespace resnetcore

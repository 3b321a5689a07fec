// A trainer as Python holds it: a training, and room for the rows of a batch that are not side by side.
#pragma once

#include "bindings/batch_arguments.h"
#include "bindings/network_object.h"
#include "train/training.h"

namespace resnetcore {

template <class T>
struct TrainerOf : Training<T> {
    using Training<T>::Training;
    AlignedArray<Compute<T>> gathered;
    AlignedArray<Compute<T>> gathered_on_device{this->model->device()};
    Staged<std::int64_t> chosen{this->model->device()};
};

}  // namespace resnetcore

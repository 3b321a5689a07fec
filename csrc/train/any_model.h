// A network whose dtype is known at run time only: a model that stores what it computes with, or narrower numbers.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include "train/model.h"

namespace resnetcore {

template <class T>
using ModelPtr = std::shared_ptr<Model<T>>;

struct AnyModel {
    std::variant<ModelPtr<float>, ModelPtr<double>, ModelPtr<bfloat16>, ModelPtr<bfloat16x2>> model;
    std::string dtype, matmul_precision;  // as asked for

    // Calls visit(Model<T>&) with the network's own T.
    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, model);
    }
};

// `matmul_precision` counts where the dtype is "float32", as far as the device gains by it. Throws DTypeError for a
// dtype that is not "float32", "float64" or "bfloat16", ValueError for an unknown precision.
AnyModel make_model(Topology topology, std::uint64_t seed, const std::string& dtype,
                    const std::string& matmul_precision, Device& device = host_device());

// The same arrays, no shared state. Another device may store other numbers for the same precision; what both compute
// with is the same.
AnyModel clone_to(const AnyModel& other, Device& device);

}  // namespace resnetcore

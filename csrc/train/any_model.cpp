#include "train/any_model.h"

#include <type_traits>
#include <utility>

#include "base/error.h"
#include "kernels/select.h"

namespace resnetcore {
namespace {

// What the products of a float32 network are made of where this is asked for.
MatmulPrecision available_on(const Device& device, MatmulPrecision asked) {
    if (device.is_host()) return available(asked);
    return asked == MatmulPrecision::high && !device.has_bfloat16x2() ? MatmulPrecision::highest : asked;
}

// make(T()) for the T that a network stores on this device.
template <class Make>
AnyModel make_stored(const std::string& dtype, const std::string& matmul_precision, const Device& device,
                     const Make& make) {
    const MatmulPrecision products = available_on(device, find_matmul_precision(matmul_precision));
    auto model = [&](auto element) { return AnyModel{make(element), dtype, matmul_precision}; };
    if (dtype == "bfloat16" || (dtype == "float32" && products == MatmulPrecision::medium)) return model(bfloat16());
    if (dtype == "float32" && products == MatmulPrecision::high) return model(bfloat16x2());
    if (dtype == "float32") return model(float());
    if (dtype == "float64") return model(double());
    throw DTypeError("Network: dtype must be \"float32\", \"float64\" or \"bfloat16\", got \"" + dtype + "\"");
}

template <class U, class T>
ModelPtr<U> converted(const Model<T>& model, Device& device) {
    if constexpr (std::is_same_v<U, T>) {
        return std::make_shared<Model<U>>(model, device);
    } else {
        static_assert(std::is_same_v<Compute<U>, Compute<T>>);
        auto other = std::make_shared<Model<U>>(model.topology(), model.seed(), device);
        std::vector<std::vector<Compute<T>>> arrays;
        std::vector<std::pair<int, Compute<T>*>> read;
        std::vector<std::pair<int, const Compute<T>*>> written;
        for (const Parameter& p : model.parameters().all) {
            arrays.emplace_back(p.size());
            read.push_back({static_cast<int>(read.size()), arrays.back().data()});
            written.push_back({static_cast<int>(written.size()), arrays.back().data()});
        }
        model.read(read);
        other->write(written);
        return other;
    }
}

}  // namespace

AnyModel make_model(Topology topology, std::uint64_t seed, const std::string& dtype,
                    const std::string& matmul_precision, Device& device) {
    return make_stored(dtype, matmul_precision, device, [&](auto element) {
        return std::make_shared<Model<decltype(element)>>(std::move(topology), seed, device);
    });
}

AnyModel clone_to(const AnyModel& other, Device& device) {
    return other.with([&](const auto& model) {
        using T = typename std::decay_t<decltype(model)>::Scalar;
        return make_stored(other.dtype, other.matmul_precision, device,
                           [&](auto element) -> ModelPtr<decltype(element)> {
                               using U = decltype(element);
                               if constexpr (std::is_same_v<Compute<U>, Compute<T>>) return converted<U>(model, device);
                               return nullptr;  // never: the dtype is the same
                           });
    });
}

}  // namespace resnetcore

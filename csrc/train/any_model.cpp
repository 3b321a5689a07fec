#include "train/any_model.h"

#include <utility>

#include "base/error.h"
#include "kernels/select.h"

namespace resnetcore {

AnyModel make_model(Topology topology, std::uint64_t seed, const std::string& dtype,
                    const std::string& matmul_precision) {
    const MatmulPrecision products = available(find_matmul_precision(matmul_precision));
    auto make = [&](auto element) {
        return AnyModel{std::make_shared<Model<decltype(element)>>(std::move(topology), seed), dtype, matmul_precision};
    };
    if (dtype == "bfloat16" || (dtype == "float32" && products == MatmulPrecision::medium)) return make(bfloat16());
    if (dtype == "float32" && products == MatmulPrecision::high) return make(bfloat16x2());
    if (dtype == "float32") return make(float());
    if (dtype == "float64") return make(double());
    throw DTypeError("Network: dtype must be \"float32\", \"float64\" or \"bfloat16\", got \"" + dtype + "\"");
}

}  // namespace resnetcore

// Threads, instruction sets, build facts and the names of what is built in.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <numeric>

#include "base/error.h"
#include "bindings/device_array.h"
#include "bindings/register.h"
#include "kernels/select.h"
#include "math/activation.h"
#include "math/loss.h"
#include "math/optimizer.h"
#include "math/random.h"
#include "runtime/caches.h"
#include "runtime/cuda_device.h"
#include "runtime/cuda_module.h"
#include "runtime/device.h"
#include "runtime/host_team.h"
#include "runtime/thread_pool.h"
#include "train/strategy.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

constexpr std::uint32_t shuffle_purpose = 2;

template <class Name>
std::vector<std::string> names(int count, Name name) {
    std::vector<std::string> all;
    all.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) all.push_back(name(i));
    return all;
}

py::dict isa_info() {
    py::list known;
    for (const Isa& isa : known_isas()) {
        py::dict one;
        one["name"] = isa.name;
        one["compiled"] = isa.compiled;
        one["supported"] = isa.supported;
        one["obstacle"] = isa.obstacle;
        known.append(one);
    }
    py::dict info;
    info["current"] = current_isa().name;
    info["known"] = known;
    return info;
}

py::dict build_info() {
    py::dict info;
    info["version"] = RESNETCORE_VERSION;
    info["compiler"] = __VERSION__;
    info["build_type"] = RESNETCORE_BUILD_TYPE;
    return info;
}

py::dict cache_info() {
    py::dict info;
    info["level2"] = caches().level2;
    info["last"] = caches().last;
    return info;
}

py::dict cuda_info() {
    const CudaFacts facts = cuda_facts();
    py::list gpus;
    for (const CudaFacts::Gpu& gpu : facts.gpus) gpus.append(py::make_tuple(gpu.name, gpu.compute_capability));
    py::dict info;
    info["architectures"] = facts.architectures;
    info["runtime_version"] = facts.runtime_version;
    info["driver_version"] = facts.driver_version;
    info["gpus"] = gpus;
    info["obstacle"] = facts.obstacle;
    info["unrecorded"] = recording_obstacles();
    return info;
}

// Fisher & Yates, from the end; the index of each exchange is the high half of word · (i + 1).
py::array_t<std::int64_t> random_permutation(std::int64_t n, std::uint64_t seed, std::uint32_t step) {
    if (n < 0) throw ValueError("random_permutation: n must not be negative, got " + std::to_string(n));
    py::array_t<std::int64_t> result(n);
    std::int64_t* order = result.mutable_data();
    std::iota(order, order + n, std::int64_t{0});
    const PhiloxKey key{seed, shuffle_purpose, step};
    for (std::int64_t i = n - 1; i > 0; --i) {
        const std::uint64_t index = static_cast<std::uint64_t>(i);
        const std::uint64_t high = philox_word(key, 2 * index), low = philox_word(key, 2 * index + 1);
        const auto product = static_cast<unsigned __int128>(high << 32 | low) * (index + 1);
        std::swap(order[i], order[static_cast<std::uint64_t>(product >> 64)]);
    }
    return result;
}

}  // namespace

void register_config(py::module_& m) {
    m.def("get_num_threads", &threads_of_process, "Threads that kernels run on.");
    m.def("use_host_threads", &use_host_threads, py::arg("count"),
          "Kernels called by this thread use at most so many from now on, of the OpenMP that was adopted (0: no host); "
          "the number of before.");
    m.def("adopt_openmp_of", &adopt_openmp_of, py::arg("library"),
          "Hosts' kernels run on the OpenMP that this loaded library is linked to; False where there is none.");
    m.def("host_openmp", &host_openmp, "The file of the OpenMP that was adopted, or nothing.");
    m.def("set_num_threads", &set_num_threads, py::arg("threads"), "Sets the threads that kernels run on, 1 to 1024.");
    m.def("num_threads_origin", &num_threads_origin, "Where the number of threads came from.");
    m.def("get_strategy", &get_strategy, "How steps take their weight gradients: auto, by_layer or by_tile.");
    m.def("set_strategy", &set_strategy, py::arg("name"), "Forces it for every later step; both give the same bits.");
    m.def("isa_info", &isa_info, "Instruction sets: in use, compiled, supported here.");
    m.def(
        "available_precision",
        [](const std::string& asked) { return matmul_precision_name(available(find_matmul_precision(asked))); },
        py::arg("asked"), "The matmul precision that float32 networks have here where this one is asked for.");
    m.def("build_info", &build_info, "Version, compiler and build type.");
    m.def("cache_info", &cache_info, "Bytes of the caches that the cost models reckon with.");
    m.def("cuda_info", &cuda_info,
          "What the CUDA module is built for, the driver and its GPUs, and why there are none.");
    m.def(
        "check_device", [](const std::string& name) { return device_named(name).name(); }, py::arg("name"),
        "The device's full name; raises DeviceError, with the reason, where it cannot be had.");
    m.def("activations", [] { return names(activation_count(), activation_name); }, "Names of the activations.");
    m.def("losses", [] { return names(loss_count(), loss_name); }, "Names of the losses.");
    m.def("random_permutation", &random_permutation, py::arg("n"), py::arg("seed"), py::arg("step") = 0,
          "A permutation of 0 … n−1, the same on every machine.");
}

}  // namespace resnetcore

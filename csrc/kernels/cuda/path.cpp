#include "kernels/cuda/path.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/scratch.h"

namespace resnetcore {
namespace cuda {

namespace {

// Its kernels' parameters are longer than the 4 KB that drivers before CUDA 12.1 take, which have tensor maps already.
bool drives_hopper(const void* scratch) {
    constexpr int since = 12010;
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess && version >= since && hopper::makes_maps(scratch);
}

}  // namespace

bool find_path(const char* name, int capability, const void* scratch, Path& path, char* words, std::size_t room) {
    static_assert(scratch_bytes >= hopper::tried_bytes, "what maps are tried on");
    constexpr int generation = 90;
    path = Path::simple;
    if (!name || !*name) {
        if (capability == generation && drives_hopper(scratch)) path = Path::hopper_narrow;
        return true;
    }
    if (std::strcmp(name, "simple") == 0) return true;
    if (std::strcmp(name, "ampere") == 0) {  // no module is compiled for less than it needs
        path = Path::ampere;
        return true;
    }
    constexpr struct {
        const char* name;
        Path path;
    } of_hopper[] = {
        {"hopper", Path::hopper}, {"hopper_narrow", Path::hopper_narrow}, {"hopper_fused", Path::hopper_fused}};
    Path named = Path::simple;
    for (const auto& one : of_hopper)
        if (std::strcmp(name, one.name) == 0) named = one.path;
    if (named == Path::simple) {
        std::snprintf(words, room,
                      "RESNETCORE_CUDA_PATH must be simple, ampere, hopper, hopper_narrow or hopper_fused, got %s",
                      name);
        return false;
    }
    if (capability != generation) {
        std::snprintf(words, room,
                      "RESNETCORE_CUDA_PATH=%s needs a GPU of compute capability 9.0, found %d.%d; "
                      "unset it, or name ampere or simple",
                      name, capability / 10, capability % 10);
        return false;
    }
    if (!drives_hopper(scratch)) {
        std::snprintf(words, room,
                      "RESNETCORE_CUDA_PATH=%s needs a driver that makes tensor maps, of CUDA 12.1 or later; unset it, "
                      "or name ampere or simple",
                      name);
        return false;
    }
    path = named;
    return true;
}

}  // namespace cuda
}  // namespace resnetcore

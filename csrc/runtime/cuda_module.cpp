#include "runtime/cuda_module.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

#include "base/error.h"
#include "runtime/fork_safe_mutex.h"
#include "runtime/process.h"

namespace resnetcore {
namespace {

constexpr const char* rebuild = "`RESNETCORE_CUDA=ON pip install` builds it with CUDA";

// Beside the library that this function is in, or in the folder above, where a wheel has it: libresnetcore.so is in one
// of its own. RESNETCORE_CUDA_LIBRARY names another.
std::string path_of_module() {
    constexpr const char* name = "libresnetcore_cuda.so";
    const char* named = std::getenv("RESNETCORE_CUDA_LIBRARY");
    if (named && *named) return named;
    Dl_info self = {};
    dladdr(reinterpret_cast<void*>(&path_of_module), &self);
    const std::string path = self.dli_fname ? self.dli_fname : "";
    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
    const std::string above = folder + "../" + name;
    return access((folder + name).c_str(), F_OK) != 0 && access(above.c_str(), F_OK) == 0 ? above : folder + name;
}

const CudaModule& load() {
    const std::string path = path_of_module();
    if (access(path.c_str(), F_OK))
        throw DeviceError("this build of resnetcore has no CUDA: there is no " + path + "; " + rebuild);
    // Never closed: its threads and the driver's would run on.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw DeviceError("resnetcore's CUDA module cannot be loaded: " + std::string(dlerror()));
    const auto get = reinterpret_cast<const CudaModule* (*)()>(dlsym(library, "resnetcore_cuda_module"));
    const int version = get ? get()->version : 0;
    if (version != cuda_module_version)
        throw DeviceError("resnetcore's CUDA module " + path + " is version " + std::to_string(version) +
                          ", and version " + std::to_string(cuda_module_version) +
                          " is needed: it is from another build; " + rebuild);
    return *get();
}

}  // namespace

const CudaModule& cuda_module() {
    static ForkSafeMutex& mutex = *new ForkSafeMutex;
    static const CudaModule* module = nullptr;
    static pid_t owner = 0;
    const std::lock_guard<ForkSafeMutex> lock(mutex);
    if (!module) {
        module = &load();
        owner = this_process();
    }
    if (owner != this_process())
        throw DeviceError(
            "this process was forked from one that had used CUDA, which a fork does not survive: start it anew "
            "(multiprocessing.get_context(\"spawn\")), or fork before CUDA is used");
    return *module;
}

std::string cuda_version_name(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int count_gpus(const CudaModule& module) {
    const int count = module.device_count();
    if (count > 0) return count;
    const int driver = module.driver_version();
    const std::string built = cuda_version_name(module.runtime_version());
    if (driver == 0) throw DeviceError("there is no NVIDIA driver: install one, or run on the CPU");
    if (count == 0) {
        const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
        throw DeviceError("there is a driver (CUDA " + cuda_version_name(driver) + ") but no GPU that it can use" +
                          (visible ? " with CUDA_VISIBLE_DEVICES=" + std::string(visible) : ""));
    }
    if (driver / 1000 < module.runtime_version() / 1000)
        throw DeviceError("the NVIDIA driver is for CUDA " + cuda_version_name(driver) +
                          ", and this build is made with " + built +
                          ": update the driver, or build with an older compiler, named in CUDACXX");
    throw DeviceError("CUDA does not start: " + std::string(module.last_error()));
}

CudaFacts cuda_facts() {
    CudaFacts facts;
    try {
        const CudaModule& module = cuda_module();
        facts.architectures = module.architectures();
        facts.runtime_version = module.runtime_version();
        facts.driver_version = module.driver_version();
        const int count = count_gpus(module);
        for (int i = 0; i < count; ++i) facts.gpus.push_back({module.device_name(i), module.compute_capability(i)});
    } catch (const DeviceError& error) {
        facts.obstacle = error.what();
    }
    return facts;
}

}  // namespace resnetcore

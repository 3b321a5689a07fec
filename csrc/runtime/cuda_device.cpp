#include "runtime/cuda_device.h"

#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "base/error.h"
#include "runtime/cuda_module.h"
#include "runtime/fork_safe_mutex.h"

namespace resnetcore {

CudaDevice::CudaDevice(const CudaModule& module, int index)
    : module_(module), index_(index), name_("cuda:" + std::to_string(index)), owner_(getpid()) {
    if (module.check_device(index)) {
        const std::string why = module.last_error();
        const int capability = module.compute_capability(index);
        throw DeviceError(name_ + " cannot run this build: it has code for " + module.architectures() + ", found " +
                          module.device_name(index) + ", sm_" + std::to_string(capability) + " (" + why + ")");
    }
    if (module.choose_path(index, std::getenv("RESNETCORE_CUDA_PATH")))
        throw DeviceError(name_ + ": " + module.last_error());
    tables_ = {module.f32, module.f64, module.bf16, module.bf16x2};
}

bool CudaDevice::is_owned() const { return getpid() == owner_; }

void CudaDevice::check_owned() const {
    if (!is_owned()) cuda_module();  // throws, and says what to do
}

void CudaDevice::check(int status) const {
    if (status) throw DeviceError(name_ + ": " + module_.last_error());
}

void* CudaDevice::allocate(std::size_t bytes) {
    check_owned();
    if (void* memory = module_.allocate(bytes)) return memory;
    synchronize();  // throws where it was not for want of memory
    throw std::bad_alloc();
}

void CudaDevice::release(void* memory) noexcept {
    if (is_owned()) module_.release(memory);
}

void CudaDevice::upload(void* to, const void* from, std::size_t bytes) {
    check_owned();
    check(module_.upload(to, from, bytes));
}

void CudaDevice::download(void* to, const void* from, std::size_t bytes) {
    check_owned();
    check(module_.download(to, from, bytes));
}

void CudaDevice::copy(void* to, const void* from, std::size_t bytes) {
    check_owned();
    check(module_.copy(to, from, bytes));
}

void CudaDevice::clear(void* memory, std::size_t bytes) {
    check_owned();
    check(module_.clear(memory, bytes));
}

void CudaDevice::synchronize() {
    check_owned();
    check(module_.synchronize());
}

void CudaDevice::make_current() {
    check_owned();
    check(module_.make_current(index_));
}

void CudaDevice::begin_recording() {
    check_owned();
    check(module_.begin_recording());
}

void* CudaDevice::end_recording() { return module_.end_recording(); }

void CudaDevice::play(void* recording) {
    check_owned();
    check(module_.play(recording));
}

void CudaDevice::discard(void* recording) noexcept {
    if (is_owned()) module_.discard(recording);
}

Device& find_cuda_device(int index) {
    static ForkSafeMutex& mutex = *new ForkSafeMutex;
    static auto& devices =
        *new std::map<int, std::unique_ptr<CudaDevice>>;  // never destroyed: CUDA may be gone by then
    const std::lock_guard<ForkSafeMutex> lock(mutex);
    const CudaModule& module = cuda_module();
    std::unique_ptr<CudaDevice>& device = devices[index];
    if (!device) {
        const int count = count_gpus(module);
        if (index >= count)
            throw DeviceError("there is no cuda:" + std::to_string(index) + ": this process has " +
                              std::to_string(count) +
                              (count == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:" + std::to_string(count - 1)));
        device = std::make_unique<CudaDevice>(module, index);
    }
    return *device;
}

}  // namespace resnetcore

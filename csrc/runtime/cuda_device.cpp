#include "runtime/cuda_device.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "base/error.h"
#include "runtime/cuda_module.h"
#include "runtime/fork_safe_mutex.h"
#include "runtime/process.h"

namespace resnetcore {

CudaDevice::CudaDevice(const CudaModule& module, int index)
    : module_(module), index_(index), name_("cuda:" + std::to_string(index)), owner_(this_process()) {
    if (const int status = module.check_device(index)) {
        const std::string why = module.last_error();
        if (status == cuda_out_of_memory)
            throw OutOfMemoryError(
                name_ + " has too little memory left to load resnetcore's kernels (" + why +
                "): end what else uses it (nvidia-smi lists that), or run on another GPU or the CPU");
        const int capability = module.compute_capability(index);
        throw DeviceError(name_ + " cannot run this build: it has code for " + module.architectures() + ", found " +
                          module.device_name(index) + ", sm_" + std::to_string(capability) + " (" + why + ")");
    }
    check(module.choose_path(index, std::getenv("RESNETCORE_CUDA_PATH")));
    tables_ = {module.f32, module.f64, module.bf16, module.bf16x2};
}

// The README's table of states says which have passed.
std::vector<Device::Path> CudaDevice::paths() const {
    std::vector<Path> found;
    for (const Path& path : {Path{"simple", true}, Path{"ampere", false}, Path{"hopper", true},
                             Path{"hopper_narrow", true}, Path{"hopper_fused", false}})
        if (path_number(path.name) >= 0) found.push_back(path);
    return found;
}

bool CudaDevice::is_owned() const { return this_process() == owner_; }

void CudaDevice::check_owned() const {
    if (!is_owned()) cuda_module();  // throws, and says what to do
}

void CudaDevice::check(int status) const {
    if (!status) return;
    const std::string what = name_ + ": " + module_.last_error();
    if (status == cuda_out_of_memory)
        throw OutOfMemoryError(what + "; end what else uses it (nvidia-smi lists that), or give it less to do at once");
    throw DeviceError(what);
}

void* CudaDevice::allocated(void* memory) {
    if (memory) return memory;
    synchronize();  // throws where it was not for want of memory
    throw std::bad_alloc();
}

void* CudaDevice::allocate(std::size_t bytes) {
    check_owned();
    return allocated(module_.allocate(bytes));
}

void* CudaDevice::allocate_unset(std::size_t bytes) {
    check_owned();
    return allocated(module_.allocate_unset(bytes));
}

void CudaDevice::release(void* memory) noexcept {
    if (is_owned()) module_.release(index_, memory);
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

void* CudaDevice::allocate_pinned(std::size_t bytes) {
    check_owned();
    return allocated(module_.allocate_pinned(bytes));
}

void CudaDevice::release_pinned(void* memory) noexcept {
    if (is_owned()) module_.release_pinned(memory);
}

void CudaDevice::send(void* to, const void* from, std::size_t bytes) {
    check_owned();
    check(module_.send(to, from, bytes));
}

void CudaDevice::fetch(void* to, const void* from, std::size_t bytes) {
    check_owned();
    check(module_.fetch(to, from, bytes));
}

void* CudaDevice::make_mark() {
    check_owned();
    void* mark = module_.make_mark();
    if (!mark) check(-1);
    return mark;
}

void CudaDevice::set_mark(void* mark) {
    check_owned();
    check(module_.set_mark(mark));
}

void CudaDevice::wait_for(void* mark) {
    check_owned();
    check(module_.wait_for(mark));
}

void CudaDevice::discard_mark(void* mark) noexcept {
    if (is_owned()) module_.discard_mark(mark);
}

Device::Before CudaDevice::make_current() {
    check_owned();
    CudaPlace before = {};
    if (const int status = module_.make_current(index_, &before)) {
        module_.restore(&before);
        check(status);
    }
    return {before.device, before.context};
}

void CudaDevice::restore(const Before& before) noexcept {
    const CudaPlace place = {before.device, before.context};
    if (is_owned()) module_.restore(&place);
}

void CudaDevice::wait_for_stream(void* other) {
    check_owned();
    check(module_.wait_for_stream(other));
}

void CudaDevice::let_stream_wait(void* other) {
    check_owned();
    check(module_.let_stream_wait(other));
}

void CudaDevice::check_launches() {
    check_owned();
    check(module_.check_launches());
}

void CudaDevice::wait_for_default_stream() {
    wait_for_stream(reinterpret_cast<void*>(1));  // NOLINT(performance-no-int-to-ptr): cudaStreamLegacy is that
}

void CudaDevice::gather(const GatherArgs& args) {
    check_owned();
    check(module_.gather(&args));
}

bool CudaDevice::begin_recording() {
    check_owned();
    const bool begun = !module_.begin_recording();
    if (!begun) note_obstacle();
    return begun;
}

void* CudaDevice::end_recording() {
    void* recording = module_.end_recording();
    if (!recording) note_obstacle();
    return recording;
}

void CudaDevice::note_obstacle() {
    const std::lock_guard<std::mutex> lock(mutex_);
    recording_obstacle_ = module_.last_error();
}

std::string CudaDevice::recording_obstacle() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return recording_obstacle_;
}

void CudaDevice::play(void* recording) {
    check_owned();
    check(module_.play(recording));
}

void CudaDevice::discard(void* recording) noexcept {
    if (is_owned()) module_.discard(recording);
}

namespace {

struct Devices {
    ForkSafeMutex mutex;
    std::map<int, std::unique_ptr<CudaDevice>> by_index;
};
Devices& devices() {
    static auto& all = *new Devices;  // never destroyed: CUDA may be gone by then
    return all;
}

}  // namespace

CudaDevice& find_cuda_device(int index) {
    const std::lock_guard<ForkSafeMutex> lock(devices().mutex);
    const CudaModule& module = cuda_module();
    std::unique_ptr<CudaDevice>& device = devices().by_index[index];
    if (!device) {
        const int count = count_gpus(module);
        if (index < 0 || index >= count)
            throw DeviceError("there is no cuda:" + std::to_string(index) + ": this process has " +
                              std::to_string(count) +
                              (count == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:" + std::to_string(count - 1)));
        device = std::make_unique<CudaDevice>(module, index);
    }
    return *device;
}

CudaDevice* find_cuda_device_of(const void* memory) {
    const int index = cuda_module().device_of(memory);
    return index < 0 ? nullptr : &find_cuda_device(index);
}

std::vector<std::pair<std::string, std::string>> recording_obstacles() {
    std::vector<std::pair<std::string, std::string>> found;
    const std::lock_guard<ForkSafeMutex> lock(devices().mutex);
    for (const auto& [index, device] : devices().by_index) {
        const std::string why = device ? device->recording_obstacle() : "";
        if (!why.empty()) found.emplace_back(device->name(), why);
    }
    return found;
}

}  // namespace resnetcore

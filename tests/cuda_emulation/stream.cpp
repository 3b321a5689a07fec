#include "stream.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "block.h"
#include "hopper/tensor_map.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/stream.h"
#include "memory.h"
#include "shared_memory.h"

namespace emulation {
namespace {

// As CUDA's variable of this name.
bool blocking() {
    const char* given = std::getenv("CUDA_LAUNCH_BLOCKING");
    return given && *given == '1';
}

Stream& device_stream() {
    static Stream& stream = *new Stream;
    return stream;
}
struct Others {
    std::mutex mutex;
    Stream defaults[2];
    std::vector<std::unique_ptr<Stream>> streams;
};
Others& others() {
    static Others& all = *new Others;
    return all;
}
constexpr int processors = 3;  // so few that a block has several tiles

thread_local std::unique_ptr<Recording> taken_down;
thread_local cudaError_t last_error = cudaSuccess;

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
bool is_possible(dim3 grid, dim3 block) {
    constexpr unsigned most_across = 2147483647, most_along = 65535, most_threads = 1024;
    return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= most_across && grid.y <= most_along &&
           grid.z <= most_along && block.x > 0 && block.x <= most_threads;
}

// Of dynamic shared memory: what every kernel may have, or has been set for this one.
struct SharedBytes {
    std::mutex mutex;
    std::map<const void*, std::size_t> of_kernel;
};
SharedBytes& shared_bytes_of_kernels() {
    static SharedBytes& all = *new SharedBytes;
    return all;
}
std::size_t allowed_bytes(const void* kernel) {
    constexpr std::size_t always = 48 << 10;
    SharedBytes& all = shared_bytes_of_kernels();
    std::lock_guard<std::mutex> lock(all.mutex);
    const auto found = all.of_kernel.find(kernel);
    return found == all.of_kernel.end() ? always : found->second;
}

}  // namespace

void Stream::add(Work work) {
    constexpr std::size_t much = 512;
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(work));
    if (blocking() || queue_.size() >= much) run();
}

void Stream::wait() {
    std::lock_guard<std::mutex> lock(mutex_);
    run();
}

void Stream::run() {
    if (queue_.empty()) return;
    std::vector<const void*> addresses;
    for (const Work& work : queue_) addresses.insert(addresses.end(), work->addresses.begin(), work->addresses.end());
    const bool everywhere = std::any_of(queue_.begin(), queue_.end(), [](const Work& work) { return work->is_kernel; });
    const auto access = everywhere ? std::make_unique<Access>() : std::make_unique<Access>(addresses);
    for (const Work& work : queue_) work->run();
    queue_.clear();
}

Stream* current_stream() { return &device_stream(); }

Stream* make_stream() {
    const std::lock_guard<std::mutex> lock(others().mutex);
    others().streams.push_back(std::make_unique<Stream>());
    return others().streams.back().get();
}

Stream* find_stream(void* handle) {
    const std::lock_guard<std::mutex> lock(others().mutex);
    const auto number = reinterpret_cast<std::uintptr_t>(handle);
    if (number == 1 || number == 2) return &others().defaults[number - 1];
    for (const auto& stream : others().streams)
        if (stream.get() == handle) return stream.get();
    return handle == &device_stream() ? &device_stream() : nullptr;
}

Work kernel_work(std::function<void()> run) { return std::make_shared<const Task>(Task{std::move(run), true, {}}); }
Work copy_work(std::vector<const void*> addresses, std::function<void()> run) {
    return std::make_shared<const Task>(Task{std::move(run), false, std::move(addresses)});
}

void enqueue(Work work) {
    if (taken_down)
        taken_down->push_back(std::move(work));
    else
        device_stream().add(std::move(work));
}

void launch(Stream*, const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, bool together,
            std::function<void()> thread) {
    if (!is_possible(grid, block))
        last_error = cudaErrorInvalidConfiguration;
    else if (shared_bytes > allowed_bytes(kernel))
        last_error = cudaErrorInvalidValue;
    else if (together && std::uint64_t{grid.x} * grid.y * grid.z > processors)
        last_error = cudaErrorCooperativeLaunchTooLarge;
    else
        enqueue(kernel_work([=, thread = std::move(thread)] {
            together ? run_grid_together(grid, block, shared_bytes, thread)
                     : run_grid(grid, block, shared_bytes, thread);
        }));
}

bool recording() { return taken_down != nullptr; }
bool begin_recording() {
    if (taken_down) return false;
    taken_down = std::make_unique<Recording>();
    return true;
}
std::unique_ptr<Recording> end_recording() { return std::move(taken_down); }

void play(const Recording& recording) {
    for (const Work& work : recording) device_stream().add(work);
}
void wait() { device_stream().wait(); }

}  // namespace emulation

cudaError_t cudaPeekAtLastError() { return emulation::last_error; }
cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
    if (value < 0 || static_cast<std::size_t>(value) > emulation::most_shared_bytes)
        return emulation::last_error = cudaErrorInvalidValue;
    emulation::SharedBytes& all = emulation::shared_bytes_of_kernels();
    std::lock_guard<std::mutex> lock(all.mutex);
    all.of_kernel[kernel] = static_cast<std::size_t>(value);
    return cudaSuccess;
}

// Of CUDA 13.0, unless RESNETCORE_EMULATED_DRIVER says otherwise (12000).
cudaError_t cudaDriverGetVersion(int* version) {
    const char* given = std::getenv("RESNETCORE_EMULATED_DRIVER");
    return *version = given ? std::atoi(given) : 13000, cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    return *value = emulation::processors, cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *function = known ? reinterpret_cast<void*>(emulation::hopper::encode_tiled) : nullptr;
    *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

namespace resnetcore {
namespace cuda {

cudaStream_t current_stream() { return emulation::current_stream(); }
// Nothing has to be loaded here.
ListedKernel::ListedKernel(const void* function) : function_(function), next_(nullptr) {}

}  // namespace cuda
}  // namespace resnetcore

// The module's border (kernels/cuda/module.h) over the emulation: a drop-in for the one that needs a GPU.
#include "kernels/cuda/module.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/tables.h"
#include "memory.h"
#include "stream.h"

namespace {

thread_local std::string error;

int fail(const char* what) {
    error = what;
    return -1;
}
int refused_while_recording() {
    return fail("a sequence is being recorded: it cannot be waited for, nor read from the host");
}

// Of Hopper, unless RESNETCORE_EMULATED_CAPABILITY says otherwise.
int compute_capability() {
    constexpr int hopper = 90;
    const char* given = std::getenv("RESNETCORE_EMULATED_CAPABILITY");
    return given ? std::atoi(given) : hopper;
}

std::atomic<resnetcore::cuda::Path> path{resnetcore::cuda::Path::simple};

int find_path(const char* name, resnetcore::cuda::Path& found) {
    char words[200];
    const resnetcore::cuda::Scratch scratch;
    const bool is_there =
        resnetcore::cuda::find_path(name, compute_capability(), scratch.data(), found, words, sizeof words);
    return is_there ? 0 : fail(words);
}
int choose_path(int, const char* name) {
    resnetcore::cuda::Path chosen;
    const int status = find_path(name, chosen);
    if (status == 0) path = chosen;
    return status;
}
int path_number(int, const char* name) {
    resnetcore::cuda::Path found;
    return find_path(name, found) == 0 ? resnetcore::cuda::number_of(found) : -1;
}

int device_count() {
    const char* given = std::getenv("RESNETCORE_EMULATED_DEVICES");
    return given ? std::atoi(given) : 1;
}
int check_device(int device) {
    return device >= 0 && device < device_count() ? 0 : fail("there is no emulated device of this number");
}

// All of them share one stream: what is in order on several is a question for real ones.
thread_local int current_device = 0;

int make_current(int device, resnetcore::CudaPlace* before) {
    *before = {current_device, nullptr};
    if (const int status = check_device(device)) return status;
    current_device = device;
    return 0;
}

int device_of(const void* memory) {
    const int device = emulation::device_of(memory);
    return device < 0 ? fail("this is no memory of a device's") : device;
}

void* allocate(std::size_t bytes) {
    if (emulation::recording()) return refused_while_recording(), nullptr;
    void* memory = emulation::allocate(bytes, current_device);
    if (!memory) fail("the emulated device has no memory left");
    return memory;
}

// Filled with NaNs, which are no labels either.
void* allocate_unset(std::size_t bytes) {
    void* const memory = allocate(bytes);
    if (memory) emulation::enqueue(emulation::copy_work({memory}, [=] { std::memset(memory, 0xff, bytes); }));
    return memory;
}

void release(int, void* memory) {
    emulation::wait();
    emulation::release(memory);
}

int settle() {
    if (emulation::recording()) return refused_while_recording();
    emulation::wait();
    return cudaGetLastError() == cudaSuccess ? 0 : fail("a launch was refused");
}

// How often the caller has waited for the device.
std::atomic<int> waits{0};
int synchronize() {
    ++waits;
    return settle();
}

std::atomic<int> gathers{0};
int gather(const resnetcore::GatherArgs* args) {
    ++gathers;
    return resnetcore::cuda::gather(args);
}

int upload(void* to, const void* from, std::size_t bytes) {
    if (emulation::recording()) return refused_while_recording();
    const std::string staged(static_cast<const char*>(from), bytes);
    emulation::enqueue(emulation::copy_work({to}, [to, staged] { std::memcpy(to, staged.data(), staged.size()); }));
    constexpr std::size_t large = 1 << 20;  // not worth keeping
    if (bytes >= large) emulation::wait();
    return 0;
}

int download(void* to, const void* from, std::size_t bytes) {
    if (emulation::recording()) return refused_while_recording();
    emulation::enqueue(emulation::copy_work({to, from}, [=] { std::memcpy(to, from, bytes); }));
    return synchronize();
}

// As early as it may be: what is still to be done with `to` finds it overwritten.
int send(void* to, const void* from, std::size_t bytes) {
    if (emulation::recording()) return refused_while_recording();
    const emulation::Access access({to, from});
    std::memcpy(to, from, bytes);
    return 0;
}

int fetch(void* to, const void* from, std::size_t bytes) {
    if (emulation::recording()) return refused_while_recording();
    if (cudaGetLastError() != cudaSuccess) return fail("a launch was refused");
    emulation::enqueue(emulation::copy_work({to, from}, [=] { std::memcpy(to, from, bytes); }));
    return 0;
}

int copy(void* to, const void* from, std::size_t bytes) {
    emulation::enqueue(emulation::copy_work({to, from}, [=] { std::memmove(to, from, bytes); }));
    return 0;
}

int clear(void* memory, std::size_t bytes) {
    emulation::enqueue(emulation::copy_work({memory}, [=] { std::memset(memory, 0, bytes); }));
    return 0;
}

int begin_recording() {
    if (std::getenv("RESNETCORE_EMULATED_RECORDING_FAILS")) return fail("the emulation is told not to record");
    if (cudaPeekAtLastError() != cudaSuccess) return fail("a launch before the recording was refused");
    return emulation::begin_recording() ? 0 : fail("a sequence is being recorded already");
}

void* end_recording() {
    if (!emulation::recording()) return fail("no sequence is being recorded"), nullptr;
    const auto recording = emulation::end_recording();
    if (cudaGetLastError() != cudaSuccess) return fail("a launch was refused"), nullptr;
    return new emulation::Recording(*recording);
}

int play(void* recording) {
    const resnetcore::cuda::Scratch held;
    emulation::play(*static_cast<emulation::Recording*>(recording));
    return 0;
}

void discard(void* recording) { delete static_cast<emulation::Recording*>(recording); }

// To have run what comes before is more than to wait for it in the stream, and seen by nobody.
int wait_for_stream(void* other) {
    emulation::Stream* const stream = emulation::find_stream(other);
    if (!stream) return fail("there is no such stream");
    stream->wait();
    return 0;
}
int let_stream_wait(void* other) { return emulation::find_stream(other) ? settle() : fail("there is no such stream"); }

}  // namespace

namespace resnetcore {
namespace cuda {

Path current_path() { return used_or(path); }
std::int64_t processor_count() {
    int count = 0;
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, current_device);
    return count;
}
bool launches_ahead() { return is_hopper(current_path()); }
// Of all devices, one at a time. NaNs, until something is written there.
Scratch::Scratch() {
    static std::mutex mutex;
    static auto& of_devices = *new std::map<int, std::vector<unsigned char>>;
    lock_ = std::unique_lock<std::mutex>(mutex);
    std::vector<unsigned char>& memory = of_devices[current_device];
    const bool is_new = memory.empty();
    if (is_new) memory.assign(static_cast<std::size_t>(scratch_bytes + meeting_bytes) + 64, 0xff);
    data_ = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    if (is_new) *meeting() = 0;
}
int report(cudaError_t error, const char*) { return error == cudaSuccess ? 0 : fail("a launch was refused"); }

}  // namespace cuda
}  // namespace resnetcore

extern "C" __attribute__((visibility("default"))) const resnetcore::CudaModule* resnetcore_cuda_module() {
    using namespace resnetcore;
    static const CudaModule module = {
        cuda_module_version,
        [] { return "emulated"; },
        [] { return 13000; },
        [] { return 13000; },
        device_count,
        device_of,
        [](int device) { return check_device(device) == 0 ? "emulated" : ""; },
        [](int device) { return check_device(device) == 0 ? compute_capability() : -1; },
        check_device,
        choose_path,
        path_number,
        cuda::use_path,
        [] { return error.c_str(); },
        cuda::max_columns,
        make_current,
        [](const CudaPlace* before) { current_device = before->device; },
        allocate,
        allocate_unset,
        release,
        upload,
        download,
        copy,
        clear,
        gather,
        synchronize,
        [] { return cudaGetLastError() == cudaSuccess ? 0 : fail("a launch was refused"); },
        std::malloc,
        std::free,
        send,
        fetch,
        []() -> void* { return &error; },  // one mark for all: whoever waits for it waits for everything
        [](void*) { return 0; },
        [](void*) { return synchronize(); },
        [](void*) {},
        []() -> void* { return emulation::current_stream(); },
        wait_for_stream,
        let_stream_wait,
        begin_recording,
        end_recording,
        play,
        discard,
        cuda::f32(),
        cuda::f64(),
        cuda::bf16(),
        cuda::bf16x2(),
    };
    return &module;
}

// Another program's work, for tests: a stream of its own, copies of the host's memory to the device's and back in its
// order, and to wait for it.
extern "C" __attribute__((visibility("default"))) void* emulated_stream() { return emulation::make_stream(); }
extern "C" __attribute__((visibility("default"))) void emulated_copy(void* stream, void* to, const void* from,
                                                                     std::size_t bytes) {
    const std::string staged(static_cast<const char*>(from), bytes);
    emulation::find_stream(stream)->add(
        emulation::copy_work({to}, [to, staged] { std::memcpy(to, staged.data(), staged.size()); }));
}
extern "C" __attribute__((visibility("default"))) void emulated_read(void* stream, void* to, const void* from,
                                                                     std::size_t bytes) {
    emulation::find_stream(stream)->add(emulation::copy_work({from}, [=] { std::memcpy(to, from, bytes); }));
}
extern "C" __attribute__((visibility("default"))) void emulated_wait(void* stream) {
    emulation::find_stream(stream)->wait();
}
// What has been done since the module was loaded that costs a caller time.
extern "C" __attribute__((visibility("default"))) int emulated_waits() { return waits; }
extern "C" __attribute__((visibility("default"))) int emulated_gathers() { return gathers; }

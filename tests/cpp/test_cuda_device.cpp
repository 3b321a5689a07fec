// CudaDevice over a module of plain functions: which status becomes which exception, and what a forked child may do.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string>

#include "base/error.h"
#include "check.h"
#include "runtime/cuda_device.h"
#include "runtime/stream_order.h"

using namespace resnetcore;

namespace {

int status = 0;
bool has_memory = true;
int releases = 0, synchronizations = 0;
int current = 1;

CudaModule plain_functions() {
    CudaModule m = {};
    m.version = cuda_module_version;
    m.architectures = [] { return "sm_80 sm_90a compute_100"; };
    m.device_name = [](int) { return "Old GPU"; };
    m.compute_capability = [](int) { return 70; };
    m.check_device = [](int) { return status; };
    m.choose_path = [](int, const char* name) { return name && *name ? 1 : 0; };
    m.last_error = [] { return "an illegal memory access was encountered"; };
    m.make_current = [](int device, CudaPlace* before) {
        *before = {current, nullptr};
        current = device;
        return status;
    };
    m.restore = [](const CudaPlace* before) { current = before->device; };
    m.max_columns = 64;
    m.allocate = [](std::size_t bytes) { return has_memory ? std::calloc(bytes, 1) : nullptr; };
    m.allocate_unset = m.allocate;
    m.release = [](int, void* memory) {
        ++releases;
        std::free(memory);
    };
    m.upload = m.download = m.copy = [](void*, const void*, std::size_t) { return status; };
    m.clear = [](void*, std::size_t) { return status; };
    m.synchronize = [] {
        ++synchronizations;
        return status;
    };
    m.check_launches = [] { return status; };
    m.allocate_pinned = m.allocate;
    m.release_pinned = [](void* memory) {
        ++releases;
        std::free(memory);
    };
    m.send = m.fetch = m.upload;
    m.make_mark = []() -> void* { return status ? nullptr : &status; };
    m.set_mark = m.wait_for = [](void*) { return status; };
    m.discard_mark = [](void*) { ++releases; };
    m.begin_recording = [] { return status; };
    m.end_recording = []() -> void* { return nullptr; };
    m.play = [](void*) { return status; };
    m.discard = [](void*) { ++releases; };
    return m;
}

template <class Exception, class Call>
std::string message_of(Call call) {
    try {
        call();
    } catch (const Exception& error) {
        return error.what();
    } catch (...) {
        return "another exception";
    }
    return "no exception";
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void every_status_is_an_error(CudaDevice& device) {
    char memory[8];
    status = 700;
    const std::string expected = "cuda:3: an illegal memory access was encountered";
    CHECK(message_of<DeviceError>([&] { device.make_current(); }) == expected, "make_current");
    CHECK(message_of<DeviceError>([&] { device.upload(memory, memory, 8); }) == expected, "upload");
    CHECK(message_of<DeviceError>([&] { device.download(memory, memory, 8); }) == expected, "download");
    CHECK(message_of<DeviceError>([&] { device.copy(memory, memory, 8); }) == expected, "copy");
    CHECK(message_of<DeviceError>([&] { device.clear(memory, 8); }) == expected, "clear");
    CHECK(message_of<DeviceError>([&] { device.synchronize(); }) == expected, "synchronize");
    CHECK(message_of<DeviceError>([&] { device.check_launches(); }) == expected, "check_launches");
    CHECK(message_of<DeviceError>([&] { device.send(memory, memory, 8); }) == expected, "send");
    CHECK(message_of<DeviceError>([&] { device.fetch(memory, memory, 8); }) == expected, "fetch");
    CHECK(message_of<DeviceError>([&] { device.make_mark(); }) == expected, "make_mark");
    CHECK(message_of<DeviceError>([&] { device.set_mark(memory); }) == expected, "set_mark");
    CHECK(message_of<DeviceError>([&] { device.wait_for(memory); }) == expected, "wait_for");
    CHECK(message_of<DeviceError>([&] { device.play(memory); }) == expected, "play");
    status = 0;
    device.download(memory, memory, 8);
    device.play(memory);
}

void the_thread_gets_its_device_back(CudaDevice& device) {
    {
        const CurrentDevice work(device);
        CHECK(current == 3, "%d", current);
    }
    CHECK(current == 1, "%d", current);
    status = 700;
    message_of<DeviceError>([&] { const CurrentDevice work(device); });
    CHECK(current == 1, "%d where it failed", current);
    status = 0;
}

// Work that is left to whoever comes after it.
void who_leaves_work_is_told_of_its_launches(CudaDevice& device) {
    synchronizations = 0;
    {
        StreamOrder order(device, nullptr);
        order.leave();
    }
    CHECK(synchronizations == 0, "somebody waited");
    const std::string said = message_of<DeviceError>([&] {
        StreamOrder order(device, nullptr);
        status = 700;
        order.leave();
    });
    status = 0;
    CHECK(contains(said, "illegal memory access") && synchronizations == 1, "%s, %d", said.c_str(), synchronizations);
}

void who_cannot_record_says_why(const CudaModule& module, CudaDevice& device) {
    CHECK(device.begin_recording() && device.recording_obstacle().empty(), "%s", device.recording_obstacle().c_str());
    status = 900;
    CHECK(!device.begin_recording() && contains(device.recording_obstacle(), "illegal"), "it began");
    status = 0;
    CudaDevice other(module, 4);
    CHECK(other.begin_recording() && !other.end_recording() && contains(other.recording_obstacle(), "illegal"),
          "it ended");
}

void want_of_memory_is_told_from_an_error(CudaDevice& device) {
    has_memory = false;
    CHECK(message_of<std::bad_alloc>([&] { device.allocate(8); }) == std::bad_alloc().what(), "no memory");
    CHECK(message_of<std::bad_alloc>([&] { device.allocate_pinned(8); }) == std::bad_alloc().what(), "none pinned");
    status = 700;
    CHECK(contains(message_of<DeviceError>([&] { device.allocate(8); }), "illegal memory access"), "an error before");
    status = cuda_out_of_memory;
    const std::string text = message_of<OutOfMemoryError>([&] { device.play(nullptr); });
    CHECK(contains(text, "cuda:3: ") && contains(text, "; end what else uses it"), "%s", text.c_str());
    status = 0, has_memory = true;
    device.release(device.allocate(8));
    device.release_pinned(device.allocate_pinned(8));
    CHECK(releases == 2, "%d", releases);
}

void a_gpu_without_code_is_refused(const CudaModule& module) {
    status = 209;
    const std::string text = message_of<DeviceError>([&] { CudaDevice device(module, 1); });
    CHECK(contains(text, "code for sm_80 sm_90a compute_100, found Old GPU, sm_70"), "%s", text.c_str());
    status = 0;
}

void a_full_gpu_is_told_from_one_without_code(const CudaModule& module) {
    status = cuda_out_of_memory;
    const std::string text = message_of<OutOfMemoryError>([&] { CudaDevice device(module, 1); });
    CHECK(contains(text, "cuda:1 has too little memory left to load") && contains(text, "another GPU"), "%s",
          text.c_str());
    status = 0;
}

void a_path_that_is_not_there_is_refused(const CudaModule& module) {
    setenv("RESNETCORE_CUDA_PATH", "hopper", 1);
    const std::string text = message_of<DeviceError>([&] { CudaDevice device(module, 1); });
    CHECK(text == "cuda:1: an illegal memory access was encountered", "%s", text.c_str());
    unsetenv("RESNETCORE_CUDA_PATH");
}

// The library's own module is not open in these tests, so the refusal's words are tests/test_cuda_device.py's.
void a_child_calls_nothing(CudaDevice& device) {
    void* memory = device.allocate(8);
    releases = 0;
    const pid_t child = fork();
    if (child == 0) {
        device.release(memory);
        device.release_pinned(memory);
        device.discard(memory);
        device.discard_mark(memory);
        const bool refused = message_of<DeviceError>([&] { device.synchronize(); }) != "no exception";
        _exit(refused && releases == 0 ? 0 : 1);
    }
    int result = 1;
    CHECK(waitpid(child, &result, 0) == child && result == 0, "%d", result);
    device.release(memory);
}

}  // namespace

int main() {
    setenv("RESNETCORE_CUDA_LIBRARY", "/no/such/library", 1);
    const CudaModule module = plain_functions();
    CudaDevice device(module, 3);
    CHECK(device.name() == "cuda:3" && !device.is_host(), "%s", device.name().c_str());
    every_status_is_an_error(device);
    the_thread_gets_its_device_back(device);
    who_leaves_work_is_told_of_its_launches(device);
    who_cannot_record_says_why(module, device);
    want_of_memory_is_told_from_an_error(device);
    a_gpu_without_code_is_refused(module);
    a_full_gpu_is_told_from_one_without_code(module);
    a_path_that_is_not_there_is_refused(module);
    a_child_calls_nothing(device);
    return summary("cuda_device");
}

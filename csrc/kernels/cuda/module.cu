// What the module exports. Everything is in static memory: the module loads, and answers, without a driver.
#include <cuda_runtime.h>

#include "kernels/cuda/context.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/module.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/pinned.h"
#include "kernels/cuda/recording.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tables.h"

namespace resnetcore {
namespace cuda {
namespace {

static_assert(cuda_out_of_memory == cudaErrorMemoryAllocation, "the border's number is CUDA's");

// Compiled for the same GPUs as every other kernel: where it runs, they do.
__global__ void probe() {}

const char* architectures() { return RESNETCORE_CUDA_ARCHITECTURES; }
int runtime_version() { return CUDART_VERSION; }

int driver_version() {
    int version = 0;
    return report(cudaDriverGetVersion(&version), "cudaDriverGetVersion") ? 0 : version;
}

int device_count() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (!report(error, "cudaGetDeviceCount")) return count;
    return error == cudaErrorNoDevice ? 0 : -1;
}

int device_of(const void* memory) {
    cudaPointerAttributes where = {};
    if (report(cudaPointerGetAttributes(&where, memory), "cudaPointerGetAttributes")) return -1;
    return where.type == cudaMemoryTypeDevice || where.type == cudaMemoryTypeManaged ? where.device : -1;
}

const char* device_name(int device) {
    thread_local cudaDeviceProp properties;
    return report(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties") ? "" : properties.name;
}

int compute_capability(int device) {
    int major = 0, minor = 0;
    if (report(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute"))
        return -1;
    if (report(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute"))
        return -1;
    return 10 * major + minor;
}

int check_device(int device) {
    CudaPlace before;
    int status = make_current(device, &before);
    if (!status) status = load_kernels();
    if (!status) {
        probe<<<1, 1, 0, current_stream()>>>();
        status = synchronize();
    }
    restore(&before);
    return status;
}

// On the calling thread's device.
int find_path_here(const char* name, Path& path) {
    const Context& context = *current_context();
    const int capability = compute_capability(context.device);
    if (capability < 0) return last_status();
    char words[200];
    return find_path(name, capability, context.scratch, path, words, sizeof words) ? 0 : refuse(words);
}
int choose_path(int device, const char* name) {
    CudaPlace before;
    Path path;
    int status = make_current(device, &before);
    if (!status) status = find_path_here(name, path);
    if (!status) current_context()->path = path;
    restore(&before);
    return status;
}
int path_number(int device, const char* name) {
    CudaPlace before;
    Path path;
    int status = make_current(device, &before);
    if (!status) status = find_path_here(name, path);
    restore(&before);
    return status ? -1 : number_of(path);
}

void* stream() { return current_stream(); }

}  // namespace
}  // namespace cuda
}  // namespace resnetcore

extern "C" __attribute__((visibility("default"))) const resnetcore::CudaModule* resnetcore_cuda_module() {
    using namespace resnetcore;
    using namespace resnetcore::cuda;
    static const CudaModule module = {
        cuda_module_version,
        architectures,
        runtime_version,
        driver_version,
        device_count,
        device_of,
        device_name,
        compute_capability,
        check_device,
        choose_path,
        path_number,
        use_path,
        last_error,
        max_columns,
        make_current,
        restore,
        allocate,
        allocate_unset,
        release,
        upload,
        download,
        copy,
        clear,
        gather,
        synchronize,
        check_launches,
        allocate_pinned,
        release_pinned,
        send,
        fetch,
        make_mark,
        set_mark,
        wait_for,
        discard_mark,
        stream,
        wait_for_stream,
        let_stream_wait,
        begin_recording,
        end_recording,
        play,
        discard,
        f32(),
        f64(),
        bf16(),
        bf16x2(),
    };
    return &module;
}

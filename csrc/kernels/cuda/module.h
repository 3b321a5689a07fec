// The border between the library and the separate module that holds its CUDA kernels: plain C, so that nothing of C++'s
// run time crosses it. The module is a shared library of its own, which is loaded when a CUDA device is first asked
// for; it loads without a driver, and says then why there is no GPU.
//
// Invariant: no function here throws. A status of 0 is success; otherwise `last_error` says what happened, in words, on
// the calling thread. An error of work that was asked for before is reported by `download`, `synchronize` or
// `wait_for`; one of a launch by `let_stream_wait` and `check_launches`, too.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace resnetcore {

constexpr int cuda_module_version = 9;  // of this struct and of everything in ops.h
constexpr int cuda_out_of_memory = 2;   // the status, CUDA's own, of what fails for want of memory

// A thread's current device, of CUDA and of the module.
struct CudaPlace {
    int device;
    void* context;
};

struct CudaModule {
    int version;                     // cuda_module_version
    const char* (*architectures)();  // compiled in: "sm_80 sm_90a compute_100"
    int (*runtime_version)();        // 13000
    int (*driver_version)();         // 0 without a driver
    // −1 where there is no driver, or it fails; `last_error` says why.
    int (*device_count)();
    int (*device_of)(const void* memory);  // whose memory it is; −1 where it is none's
    const char* (*device_name)(int device);
    int (*compute_capability)(int device);  // 90; −1 on failure
    // Whether there is code for it in this build, which is loaded and tried: 0, or a status.
    int (*check_device)(int device);
    // Which of its kernels a device runs from now on, by name ("simple", "ampere", "hopper", "hopper_narrow",
    // "hopper_fused"); null or "": the default. A status where there is no such path, or not for that device.
    int (*choose_path)(int device, const char* name);
    // The number of such a path, by which the calling thread takes it on whatever device, instead of the device's own,
    // until it says −1. −1 where there is none, or not there.
    int (*path_number)(int device, const char* name);
    void (*use_path)(int number);
    const char* (*last_error)();

    std::int64_t max_columns;  // of a layer

    // The calling thread's device from now on, and its stream; until `restore`, which other libraries on this thread
    // rely on, gives it the one of before.
    int (*make_current)(int device, CudaPlace* before);
    void (*restore)(const CudaPlace* before);
    void* (*allocate)(std::size_t bytes);        // zeroed; null where there is no memory
    void* (*allocate_unset)(std::size_t bytes);  // likewise, but for what is in it
    void (*release)(int device, void* memory);   // by any thread
    int (*upload)(void* to, const void* from, std::size_t bytes);
    int (*download)(void* to, const void* from, std::size_t bytes);
    int (*copy)(void* to, const void* from, std::size_t bytes);
    int (*clear)(void* memory, std::size_t bytes);
    int (*gather)(const GatherArgs* args);
    int (*synchronize)();
    int (*check_launches)();  // of this thread, so far; waits for nothing
    // Copies beside the work: see runtime/device.h.
    void* (*allocate_pinned)(std::size_t bytes);  // null where there is no memory
    void (*release_pinned)(void* memory);
    int (*send)(void* to, const void* from, std::size_t bytes);
    int (*fetch)(void* to, const void* from, std::size_t bytes);
    void* (*make_mark)();  // null on failure
    int (*set_mark)(void* mark);
    int (*wait_for)(void* mark);
    void (*discard_mark)(void* mark);
    void* (*stream)();  // the cudaStream_t that the calling thread's work goes to
    // Whether two streams' work is in order: the current one waits for what has been asked of `other` so far, and the
    // other way round.
    int (*wait_for_stream)(void* other);
    int (*let_stream_wait)(void* other);
    // A sequence of calls on the current stream, recorded and played again.
    int (*begin_recording)();
    void* (*end_recording)();  // null on failure
    int (*play)(void* recording);
    void (*discard)(void* recording);

    const KernelTable<float>* f32;
    const KernelTable<double>* f64;
    const KernelTable<bfloat16>* bf16;
    const KernelTable<bfloat16x2>* bf16x2;
};

}  // namespace resnetcore

// What the module exports, and nothing else.
extern "C" const resnetcore::CudaModule* resnetcore_cuda_module();

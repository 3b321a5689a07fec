// A GPU, by the CUDA module.
//
// Invariant: every status of the module becomes a DeviceError with its words, but that of an allocation that found no
// memory, which is a bad_alloc. In a process forked from the one that it belongs to, every call but `release` throws.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/module.h"
#include "runtime/device.h"

namespace resnetcore {

class CudaDevice : public Device {
public:
    // Throws DeviceError where this GPU cannot run the module's kernels.
    CudaDevice(const CudaModule& module, int index);

    const std::string& name() const override { return name_; }
    bool is_host() const override { return false; }
    void* allocate(std::size_t bytes) override;
    void* allocate_unset(std::size_t bytes);  // of any content, for what is written whole
    void release(void* memory) noexcept override;
    void upload(void* to, const void* from, std::size_t bytes) override;
    void download(void* to, const void* from, std::size_t bytes) override;
    void copy(void* to, const void* from, std::size_t bytes) override;
    void clear(void* memory, std::size_t bytes) override;
    void synchronize() override;
    void* allocate_pinned(std::size_t bytes) override;
    void release_pinned(void* memory) noexcept override;
    void send(void* to, const void* from, std::size_t bytes) override;
    void fetch(void* to, const void* from, std::size_t bytes) override;
    void* make_mark() override;
    void set_mark(void* mark) override;
    void wait_for(void* mark) override;
    void discard_mark(void* mark) noexcept override;
    void gather(const GatherArgs& args) override;
    std::int64_t max_columns() const override { return module_.max_columns; }
    Before make_current() override;
    void restore(const Before& before) noexcept override;

    // For arrays that other libraries have in its memory, and work that they do on streams of their own.
    int index() const { return index_; }
    void* stream() const { return module_.stream(); }  // the device being current
    void wait_for_stream(void* other);                 // what is asked for from now on comes after what `other` has
    void let_stream_wait(void* other);
    // Throws what went wrong with this thread's launches so far: for work that is left to whoever comes after it.
    void check_launches();
    // CUDA's legacy default stream, and with it every one but those made not to wait for it (cudaStreamNonBlocking).
    void wait_for_default_stream();

    std::vector<Path> paths() const override;
    int path_number(const std::string& name) const override { return module_.path_number(index_, name.c_str()); }
    void use_path(int number) noexcept override { module_.use_path(number); }

    bool can_record() const override { return true; }
    bool begin_recording() override;
    void* end_recording() override;
    void play(void* recording) override;
    void discard(void* recording) noexcept override;

    // Why it could not record the last time that it failed to; "" where it never has.
    std::string recording_obstacle() const;

private:
    void* allocated(void* memory);  // that a call of the module gave, or none
    void note_obstacle();
    bool is_owned() const;  // by this process
    void check_owned() const;
    void check(int status) const;

    const CudaModule& module_;
    const int index_;
    const std::string name_;
    const pid_t owner_;
    mutable std::mutex mutex_;
    std::string recording_obstacle_;
};

// The GPU of that number. Throws DeviceError with the reason where it cannot be had.
CudaDevice& find_cuda_device(int index);
// The GPU whose memory this is; null where it is no GPU's.
CudaDevice* find_cuda_device_of(const void* memory);

// The GPUs in use that failed to record, and why.
std::vector<std::pair<std::string, std::string>> recording_obstacles();

}  // namespace resnetcore

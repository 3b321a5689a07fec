// All kernels of the module. A driver loads a kernel when it is first launched, which takes memory of the device: in
// the midst of a training it may all be in use, so the module loads them before it says that a device can be used.
#pragma once

namespace resnetcore {
namespace cuda {

// One kernel, listed for as long as the module is loaded.
class ListedKernel {
public:
    explicit ListedKernel(const void* function);
    ListedKernel(const ListedKernel&) = delete;

private:
    friend int load_kernels();
    const void* const function_;
    const ListedKernel* const next_;
};

// On the calling thread's device: 0, or a status.
int load_kernels();

}  // namespace cuda
}  // namespace resnetcore

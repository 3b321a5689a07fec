// The CUDA module: a shared library beside the one that this code is in, opened when it is first asked for.
//
// Invariant: importing resnetcore and running on the CPU neither opens it nor wakes CUDA's driver. Once it is open it
// stays, and a process that was forked from one that had opened it does not get it: CUDA does not survive a fork.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/module.h"

namespace resnetcore {

// Throws DeviceError: this build has none, it cannot be loaded or belongs to another build, or the process was forked.
const CudaModule& cuda_module();

// Its number of GPUs, at least one. Throws DeviceError: no driver, one that is too old, no GPU.
int count_gpus(const CudaModule& module);

std::string cuda_version_name(int version);  // "13.0" of 13000

struct CudaFacts {
    struct Gpu {
        std::string name;
        int compute_capability = 0;  // 90
    };
    std::string architectures;  // that there is code for; empty where there is no module
    int runtime_version = 0, driver_version = 0;
    std::vector<Gpu> gpus;
    std::string obstacle;  // why there is no GPU to be had, else empty
};
CudaFacts cuda_facts();

}  // namespace resnetcore

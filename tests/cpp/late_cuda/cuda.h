// Stands in for CUDA's header of this name: whether anything in the process works on a device.
#pragma once

using CUdevice = int;
enum CUresult { CUDA_SUCCESS = 0 };

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active);

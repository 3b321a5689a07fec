// What a tensor map says (CUDA Driver API, cuTensorMapEncodeTiled), in the 128 bytes that are CUDA's secret.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace emulation {
namespace hopper {

constexpr int most_dimensions = 5;

struct TensorMap {
    unsigned char* address;
    std::int64_t stride[most_dimensions];  // bytes; of the first, not used
    std::uint32_t size[most_dimensions];
    std::uint16_t box[most_dimensions];
    std::uint8_t rank, element;
    bool swizzled;  // in 128 bytes
    std::uint16_t magic;
};

TensorMap tensor_map(const CUtensorMap& map);  // fails where nobody encoded one
std::int64_t box_bytes(const TensorMap& map);

// The driver's function: refuses what its documentation does.
CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, std::uint32_t rank, void* address,
                      const std::uint64_t* size, const std::uint64_t* strides, const std::uint32_t* box,
                      const std::uint32_t* element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill);

}  // namespace hopper
}  // namespace emulation

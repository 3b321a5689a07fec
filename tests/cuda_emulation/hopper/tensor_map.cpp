#include "tensor_map.h"

#include <cstdlib>
#include <cstring>

#include "block.h"

namespace emulation {
namespace hopper {
namespace {

constexpr std::uint16_t magic = 0x7a93;

}  // namespace

TensorMap tensor_map(const CUtensorMap& map) {
    TensorMap plain;
    static_assert(sizeof plain <= sizeof map, "a tensor map has 128 bytes");
    std::memcpy(&plain, &map, sizeof plain);
    if (plain.magic != magic) fail("a copy by what is no tensor map");
    return plain;
}

std::int64_t box_bytes(const TensorMap& map) {
    std::int64_t bytes = map.element;
    for (int d = 0; d < map.rank; ++d) bytes *= map.box[d];
    return bytes;
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, std::uint32_t rank, void* address,
                      const std::uint64_t* size, const std::uint64_t* strides, const std::uint32_t* box,
                      const std::uint32_t* element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    constexpr std::uint64_t longest_stride = std::uint64_t{1} << 40, largest_size = std::uint64_t{1} << 31;
    constexpr std::uint32_t largest_box = 256, swizzle_bytes = 128;
    if (std::getenv("RESNETCORE_EMULATED_MAPS_FAIL")) return CUDA_ERROR_NOT_SUPPORTED;
    TensorMap plain = {};
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    bool right = reinterpret_cast<std::uintptr_t>(map) % 64 == 0 && rank >= 1 && rank <= most_dimensions &&
                 at % 16 == 0 && type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 &&
                 interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE &&
                 (swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || swizzle == CU_TENSOR_MAP_SWIZZLE_128B);
    plain.element = 2;
    for (std::uint32_t d = 0; right && d < rank; ++d) {
        right =
            size[d] >= 1 && size[d] <= largest_size && box[d] >= 1 && box[d] <= largest_box && element_strides[d] == 1;
        if (right && d > 0) {
            plain.stride[d] = static_cast<std::int64_t>(strides[d - 1]);
            const std::uint64_t least = d > 1 ? strides[d - 2] * size[d - 1] : size[0] * plain.element;
            right = strides[d - 1] % 16 == 0 && strides[d - 1] < longest_stride && strides[d - 1] >= least;
        }
        plain.size[d] = static_cast<std::uint32_t>(size[d]);
        plain.box[d] = static_cast<std::uint16_t>(box[d]);
    }
    right = right && box[0] * plain.element % 16 == 0 &&
            (swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || box[0] * plain.element <= swizzle_bytes);
    if (!right) return CUDA_ERROR_INVALID_VALUE;
    plain.address = static_cast<unsigned char*>(address);
    plain.rank = static_cast<std::uint8_t>(rank);
    plain.swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
    plain.magic = magic;
    std::memset(map, 0, sizeof *map);
    std::memcpy(map, &plain, sizeof plain);
    return CUDA_SUCCESS;
}

}  // namespace hopper
}  // namespace emulation

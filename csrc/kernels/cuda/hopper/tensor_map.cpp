#include "kernels/cuda/hopper/tensor_map.h"

#include "kernels/cuda/driver.h"

namespace resnetcore {
namespace cuda {
namespace hopper {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode encode_tiled() {
    static const auto found = reinterpret_cast<Encode>(find_in_driver("cuTensorMapEncodeTiled"));
    return found;
}

template <cuuint32_t rank>
bool encode_tensor(CUtensorMap& map, const bfloat16* data, const cuuint64_t (&size)[rank],
                   const cuuint64_t (&strides)[rank - 1], const cuuint32_t (&box)[rank]) {
    const cuuint32_t steps[] = {1, 1, 1};
    static_assert(rank <= 3, "a step for each dimension");
    const Encode encode = encode_tiled();
    return encode && encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<bfloat16*>(data), size, strides,
                            box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

cuuint64_t count(std::int64_t n) { return static_cast<cuuint64_t>(n); }

}  // namespace

bool encode(CUtensorMap& map, Rows<bfloat16> matrix, std::int64_t rows, std::int64_t columns, int box_rows) {
    if (matrix.stride < columns) return false;
    return encode_tensor<2>(map, matrix.data, {count(columns), count(rows)}, {count(matrix.stride) * sizeof(bfloat16)},
                            {panel_width, static_cast<cuuint32_t>(box_rows)});
}

bool encode_panels(CUtensorMap& map, const bfloat16* operand, std::int64_t inner, std::int64_t columns, int box_rows,
                   int box_panels) {
    const cuuint64_t rows = count(operand_rows<bfloat16>(inner)), row = panel_width * sizeof(bfloat16);
    return encode_tensor<3>(map, operand, {panel_width, rows, count(panel_count(columns, panel_width))},
                            {row, rows * row},
                            {panel_width, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_panels)});
}

bool makes_maps(const void* memory) {
    const auto* data = static_cast<const bfloat16*>(memory);
    CUtensorMap map;
    return encode(map, {data, panel_width}, tried_rows, panel_width, tried_rows) &&
           encode_panels(map, data, tried_rows, panel_width, tried_rows, 1);
}

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

// A chain of narrow steps as a kernel does it: operations on a tile of rows, one after another, with what they multiply
// in shared memory; and how a chain's steps become one.
//
// Invariant: blocks do their own rows only, each at its own pace. So a program ends where a step would write over
// memory that another block's rows may still be read from, or were written to.
#pragma once

#include <algorithm>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/tile.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

// What is in shared memory is counted in boxes of 64 columns, of both warpgroups' rows.
constexpr std::uint32_t chain_box_bytes = using_groups * box_bytes;
constexpr std::int64_t chain_width = 256;  // the widest layer
constexpr std::uint32_t least_stages = 2, most_stages = 24, streamed_stages = 8;

// 64 terms of a sum: where their weights are, and in which box the rows' numbers.
struct ChainTerm {
    std::uint8_t map, step, box;
};

struct ChainIdentity {
    Rows<bfloat16> rows;
    std::int32_t box;  // the first one; −1: it is read from `rows`
};

struct ChainOperation {
    enum class Kind : std::uint8_t { load, forward, backward };

    Kind kind = Kind::load;
    std::uint8_t activation = 0;
    bool is_relu = false, saved_is_argument = false;
    bool is_a = false, is_delta = false;
    std::int16_t columns = 0;
    std::int16_t first_box = 0;  // of what is loaded, or of the output
    std::int16_t first_term = 0, n_terms = 0, first_identity = 0, n_identities = 0;
    const float* bias = nullptr;
    Rows<bfloat16> in;  // what is loaded; of backward, what g′ is taken of
    MutableRows<bfloat16> argument, out;
    MutableRows<float> wide;
};

// A parameter of the kernel, which may be 32,764 bytes.
struct ChainProgram {
    static constexpr int most_maps = 96, most_operations = 64, most_identities = 96, most_terms = 256;

    CUtensorMap maps[most_maps];
    ChainOperation operations[most_operations];
    ChainIdentity identities[most_identities];
    ChainTerm terms[most_terms];
    int n_operations = 0;
    int groups = using_groups;  // warpgroups that have rows
    std::uint32_t boxes = 0, stages = 0;
    bool resident = false;  // every weight has a stage of its own, and is copied once
    std::int64_t rows = 0;
    double* largest_a = nullptr;
    double* largest_delta = nullptr;

    RC_HD std::int64_t tile_rows() const { return groups * group_rows; }
    RC_HD std::int64_t tiles() const { return (rows + tile_rows() - 1) / tile_rows(); }
};
static_assert(sizeof(ChainProgram) <= 32764, "what a kernel's parameters may take");

// Dynamic shared memory: boxes, stages, barriers.
inline std::uint32_t chain_bytes(std::uint32_t boxes, std::uint32_t stages, int panels) {
    return atom_bytes + boxes * chain_box_bytes + stages * static_cast<std::uint32_t>(panels) * box_bytes +
           barrier_bytes(stages);
}
constexpr std::uint32_t most_shared_bytes = 227 * 1024;  // what a block may have

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

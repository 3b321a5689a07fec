// A chain of narrow steps as a kernel does it: operations on a tile of rows, one after another, with what they multiply
// in shared memory; and how a chain's steps become one.
//
// Invariant: blocks do their own rows only, each at its own pace. So a program ends where a step would write over
// memory that another block's rows may still be read from, or were written to. At a batch's norm they meet.
#pragma once

#include <algorithm>

#include "kernels/columns.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/tile.cuh"
#include "math/activation.h"

namespace resnetcore {
namespace cuda {
namespace hopper {

constexpr std::int64_t chain_width = 256;  // the widest layer
using ChainRing = Ring<box_bytes>;

// Warpgroups that multiply, of which some share rows, and have columns of their own there.
constexpr int chain_groups = 4, chain_threads = (1 + chain_groups) * group_threads;
// A thread's registers: each of 640 threads starts with 96.
constexpr int chain_filling_registers = 32, chain_using_registers = 112;
static_assert(chain_filling_registers + chain_groups * chain_using_registers <= registers_of_groups(1 + chain_groups),
              "registers of a chain's threads");
// Of weights, 64 terms of 64 columns, for each of the warpgroups that share rows.
constexpr std::uint32_t least_stages = 2, most_stages = 24;

// Of a norm, in shared memory.
constexpr std::uint32_t column_bytes = 4 * sizeof(float), sums_bytes = 2 * sizeof(float);

// 64 terms of a sum: where their weights are, and in which box the rows' numbers.
struct ChainTerm {
    std::uint8_t map, step, box;
};

struct ChainIdentity {
    Rows<bfloat16> rows;
    std::int32_t box;  // the first one; −1: it is read from `rows`
};

struct ChainOperation {
    enum class Kind : std::uint8_t { load, forward, backward, undo_norm };

    Kind kind = Kind::load;
    std::uint8_t activation = 0;
    bool is_relu = false, saved_is_argument = false;
    bool is_a = false, is_delta = false;
    std::int16_t columns = 0;
    std::int16_t first_box = 0;  // of what is loaded, or of the output
    std::int16_t first_term = 0, n_terms = 0, first_identity = 0, n_identities = 0;
    // Of a norm, or −1: whose column sums come before. Then z lies in `normed_box`, and is added as the norm has it; of
    // undo_norm δ lies there, and z where the output goes.
    std::int16_t norm = -1, normed_box = 0;
    const float* bias = nullptr;
    Rows<bfloat16> in;  // what is loaded; of backward, what g′ is taken of, if it is of something
    MutableRows<bfloat16> argument, out;
    MutableRows<float> wide;
    std::uint32_t* passes = nullptr;  // forward, where they go; back, where they are instead of `in`
};

// A parameter of the kernel, which may be 32,764 bytes.
struct ChainProgram {
    static constexpr int most_maps = 96, most_operations = 64, most_identities = 96, most_terms = 256;

    CUtensorMap maps[most_maps];
    ChainOperation operations[most_operations];
    ChainIdentity identities[most_identities];
    ChainTerm terms[most_terms];
    int n_operations = 0;
    int row_groups = chain_groups;  // warpgroups that have rows of their own: 1, 2 or 4
    std::uint32_t boxes = 0;        // of 64 columns, of all rows of the block
    std::uint32_t stages = 0;       // of each of the warpgroups that share rows
    bool resident = false;          // every weight has a stage of its own, and is copied once
    std::uint32_t norm_width = 0;   // columns that norms have room for; 0 without norms
    std::int32_t rows = 0;
    double* largest_a = nullptr;
    double* largest_delta = nullptr;

    bool has_passes() const {
        return std::any_of(operations, operations + n_operations,
                           [](const ChainOperation& operation) { return operation.passes != nullptr; });
    }
    // Of each column four floats; and two for each warp of rows.
    RC_HD std::uint32_t norm_bytes() const {
        return norm_width * (column_bytes + static_cast<std::uint32_t>(row_groups * warps_of_group) * sums_bytes);
    }
    RC_HD int column_groups() const { return chain_groups / row_groups; }
    RC_HD std::uint32_t box_bytes() const { return static_cast<std::uint32_t>(row_groups) * hopper::box_bytes; }
    RC_HD int tile_rows() const { return row_groups * group_rows; }
    RC_HD std::uint32_t tiles() const { return static_cast<std::uint32_t>((rows + tile_rows() - 1) / tile_rows()); }
};
static_assert(sizeof(ChainProgram) <= 32764, "what a kernel's parameters may take");

// A batch's norm: what its column sums become; forward, or back with the coefficients of before.
struct ChainNorm {
    CombineMomentsArgs<bfloat16> moments;
    CombineNormSumsArgs<bfloat16> sums;
    const float *mean = nullptr, *inverse_deviation = nullptr, *scale = nullptr;
};

// A parameter of the kernel beside a program that has norms.
struct ChainNorms {
    // Blocks that are there at a time, each of which reads the sums of all.
    static constexpr int most = 32, most_blocks = 64;

    ChainNorm all[most];
    int count = 0;
    float* sums = nullptr;  // two floats of a column for each block; twice, as one may be a norm ahead of another
    std::uint32_t* meeting = nullptr;

    RC_HD PartialSums<bfloat16> sums_of(const ChainProgram& program, int norm, std::int64_t columns) const {
        const std::int64_t every_other = norm % 2 * 2 * chain_width * most_blocks;
        return {sums + every_other, columns, program.rows, program.tile_rows()};
    }
};
static_assert(sizeof(ChainProgram) + sizeof(ChainNorms) <= 32764, "what a kernel's parameters may take");

// Dynamic shared memory: boxes, stages, barriers, and norms' room.
inline std::uint32_t chain_bytes(const ChainProgram& program, std::uint32_t boxes, std::uint32_t stages) {
    const std::uint32_t all_stages = static_cast<std::uint32_t>(program.column_groups()) * stages;
    return boxes * program.box_bytes() + all_stages * box_bytes + barrier_bytes(all_stages) + program.norm_bytes();
}
constexpr std::uint32_t most_shared_bytes = 227 * 1024;  // what a block may have

struct ChainShared {
    const ChainProgram& program;
    Shared boxes, stages, barriers;
    __device__ __forceinline__ explicit ChainShared(const ChainProgram& of)
        : program(of),
          boxes(shared_memory()),
          stages(boxes + of.boxes * of.box_bytes()),
          barriers(stages + static_cast<std::uint32_t>(of.column_groups()) * of.stages * box_bytes) {}
    // Of the weights of that one of the warpgroups that share rows.
    __device__ __forceinline__ ChainRing ring(int column_group) const {
        const std::uint32_t before = static_cast<std::uint32_t>(column_group) * program.stages;
        return {stages + before * box_bytes, barriers + barrier_bytes(before), program.stages};
    }
    __device__ __forceinline__ Shared norm_room() const {
        return barriers + barrier_bytes(static_cast<std::uint32_t>(program.column_groups()) * program.stages);
    }
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

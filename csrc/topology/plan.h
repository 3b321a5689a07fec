// A checked topology compiled into steps over numbered row buffers.
//
// A phase is a run of row-independent steps: a tile of rows goes through the whole phase while it is in cache. A phase
// ends only where something needs every row of the batch, the sums of batch normalisation, or where a gradient is
// given.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/layer.h"
#include "topology/parameters.h"

namespace resnetcore {

using BufferId = int;  // −1: none. Buffer 0 is the network's input, the caller's memory if it can be.

struct BufferInfo {
    std::string name;
    std::int64_t width = 0;
    int activation_of = -1;               // the layer whose output this is; 0 is the input
    bool branch = false;                  // a normal path stored before its norm or dropout
    bool is_a = false, is_delta = false;  // A or δ of a weight gradient, Aᵀ·δ; never both, as A is no gradient
    int first_use = 0, last_use = 0;      // phases, or steps in a plan that is tile-local
    bool of_tile = false;                 // nobody but its tile's steps sees it: every thread has its own
    std::int64_t offset = 0;              // in elements per row of the batch, or of a tile
};

struct Product {
    BufferId rows;
    int weight;  // parameter
};

// The normal path stored before its norm, its dropout or both.
struct BranchInfo {
    BufferId z = -1;
    int norm = -1;  // layer whose batch norm applies, or −1
    double dropout = 0;
    std::uint32_t dropout_site = 0;
};

// `input` stores the caller's input as the network stores everything; `given` does the gradient of the outputs.
enum class StepKind {
    input,
    forward,
    moments,
    gate,
    loss,
    given,
    backward_data,
    norm_sums,
    norm_backward,
    gate_backward,
    weights
};

struct Step {
    StepKind kind = StepKind::forward;
    std::int64_t layer = 0;
    std::int64_t width = 0;
    BufferId out = -1;
    std::vector<Product> products;  // forward: W; backward_data: Wᵀ
    std::vector<BufferId> identities;
    int bias = -1;
    BranchInfo branch;  // forward, norm_sums, norm_backward (whose `z` and mask are read again)
    int activation = 0;
    double dropout = 0;  // of the step's output
    std::uint32_t dropout_site = 0;
    bool saved_has_dropout = false;  // backward: what was dropped is 0 in `saved`, and g′ of it 0, too
    BufferId argument = -1;          // forward: where the argument of g is kept
    BufferId saved = -1;             // backward: output of g or its argument
    bool saved_is_argument = false;
    BufferId delta = -1;  // backward of a norm or gate: the gradient coming in
    BufferId gate_h = -1, gate_t = -1, gate_x = -1, d_h = -1, d_t = -1, d_x = -1;
    int weights = -1;  // weights: index into Plan::weights
};

// dW = Aᵀ·δ for one weight, and the bias that shares its δ (or −1).
struct WeightStep {
    int weight;
    int bias;
    BufferId a, delta;
};

// Each phase is followed by a barrier, then by the combination of the column sums that its last step made, if any.
struct Phase {
    std::vector<Step> steps;
};

struct Plan {
    std::vector<BufferInfo> buffers;
    std::vector<Phase> phases;
    std::vector<WeightStep> weights;  // in the phases as well, where gradients are taken tile by tile
    bool tile_local = false;          // nothing outlives its tile but what is kept
    BufferId output = -1;             // of the last layer
    BufferId input_gradient = -1;     // only where it was asked for
    std::int64_t row_elements = 0;    // arena elements per row of the batch
    std::int64_t tile_elements = 0;   // of a thread's arena, per row of a tile
    std::int64_t kept_elements = 0;   // the first of them, with a given gradient: what forward leaves for backward
    int backward_phase = 0;           // likewise: the first that reads the gradient
    int max_terms = 1;                // the longest list of products or identities of a step
};

// How rows lie in memory, in bytes.
struct Storage {
    std::int64_t element_size = 4;
    std::int64_t alignment = 64;  // of rows
};

struct PlanOptions {
    bool training = false;  // batch statistics and dropout, rather than the running statistics
    bool backward = false;  // loss, backward and weight steps; what they read is kept, or made again
    bool input_gradient = false;
    bool given_gradient = false;   // instead of a loss: backward is a run of its own, which changes nothing kept for it
    bool weights_by_tile = false;  // weight gradients as steps of the phases, rather than after them
    bool stores_input = false;     // the caller's memory is not in the network's own precision
    bool keep_activations = false;  // give every activation memory of its own, to be read afterwards
    Storage storage;
};

Plan make_plan(const Topology& topology, const ParameterList& parameters, const PlanOptions& options);

// The plan as a table: phases, steps, what they read and write, and where.
std::string explain(const Plan& plan, const ParameterList& parameters);

}  // namespace resnetcore

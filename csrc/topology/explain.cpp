// A plan as text, for people: what runs in which phase, what it reads and writes, and where in the arena.
#include <sstream>

#include "topology/plan.h"

namespace resnetcore {
namespace {

const char* kind_name(StepKind kind) {
    switch (kind) {
        case StepKind::input:
            return "input";
        case StepKind::forward:
            return "forward";
        case StepKind::moments:
            return "moments";
        case StepKind::gate:
            return "gate";
        case StepKind::loss:
            return "loss";
        case StepKind::backward_data:
            return "backward_data";
        case StepKind::norm_sums:
            return "norm_sums";
        case StepKind::norm_backward:
            return "norm_backward";
        case StepKind::gate_backward:
            return "gate_backward";
        case StepKind::weights:
            return "weights";
    }
    return "";
}

void print(std::ostream& out, const WeightStep& w, const Plan& plan, const ParameterList& parameters) {
    out << " " << parameters.all[w.weight].name << ": [" << plan.buffers[w.a].name << "]^T*["
        << plan.buffers[w.delta].name << "]";
}

void print(std::ostream& out, const Step& step, const Plan& plan, const ParameterList& parameters) {
    auto buffer = [&](BufferId id) { return "[" + plan.buffers[id].name + "]"; };
    out << "    " << kind_name(step.kind) << " layer " << step.layer << ":";
    if (step.out >= 0) out << " " << buffer(step.out) << " <-";
    const char* transposed = step.kind == StepKind::backward_data ? "^T" : "";
    for (const Product& p : step.products)
        out << " " << buffer(p.rows) << "*" << parameters.all[p.weight].name << transposed;
    if (step.bias >= 0) out << " + " << parameters.all[step.bias].name;
    for (BufferId id : step.identities) out << " + " << buffer(id);
    if (step.branch.z >= 0) out << " + " << (step.branch.norm >= 0 ? "norm" : "") << buffer(step.branch.z);
    if (step.delta >= 0) out << " " << buffer(step.delta);
    if (step.weights >= 0) print(out, plan.weights[step.weights], plan, parameters);
    out << "\n";
}

bool takes_weights(const Plan& plan) {
    for (const Phase& phase : plan.phases)
        for (const Step& step : phase.steps)
            if (step.kind == StepKind::weights) return true;
    return false;
}

}  // namespace

std::string explain(const Plan& plan, const ParameterList& parameters) {
    std::ostringstream out;
    for (std::size_t p = 0; p < plan.phases.size(); ++p) {
        out << "phase " << p << " (row tiles, depth first)\n";
        for (const Step& step : plan.phases[p].steps) print(out, step, plan, parameters);
    }
    const bool after = !plan.weights.empty() && !takes_weights(plan);
    if (after) out << "weights (after the last phase)\n";
    for (const WeightStep& w : plan.weights)
        if (after) out << "   ", print(out, w, plan, parameters), out << "\n";
    out << "arena: " << plan.row_elements << " elements per row of "
        << (plan.tile_local ? "each thread's tile" : "the batch") << "\n";
    for (std::size_t id = 1; id < plan.buffers.size(); ++id) {
        const BufferInfo& b = plan.buffers[id];
        out << "    [" << b.name << "] width " << b.width << ", offset " << b.offset << ", alive " << b.first_use
            << " to " << b.last_use << "\n";
    }
    return out.str();
}

}  // namespace resnetcore

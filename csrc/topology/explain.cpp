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
        case StepKind::given:
            return "given";
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

class Printer {
public:
    Printer(const Plan& plan, const ParameterList& parameters) : plan_(plan), parameters_(parameters) {}

    std::string text(const WeightStep& w) const {
        return name(w.weight) + ": " + buffer(w.a) + "^T*" + buffer(w.delta);
    }
    std::string text(const Step& step) const {
        std::string line = std::string(kind_name(step.kind)) + " layer " + std::to_string(step.layer) + ":";
        if (step.weights >= 0) return line + " " + text(plan_.weights[step.weights]);
        for (BufferId id : {step.out, step.argument, step.d_h, step.d_t, step.d_x})
            if (id >= 0) line += " " + buffer(id);
        if (step.out >= 0 || step.d_h >= 0) line += " <-";
        const bool sum = step.kind == StepKind::forward || step.kind == StepKind::backward_data;
        const char* separator = " ";
        for (const std::string& operand : operands(step)) {
            line += separator + operand;
            separator = sum ? " + " : ", ";
        }
        return step.saved >= 0 ? line + ", g' of " + buffer(step.saved) : line;
    }

private:
    std::string buffer(BufferId id) const { return "[" + plan_.buffers[id].name + "]"; }
    const std::string& name(int parameter) const { return parameters_.all[parameter].name; }

    std::vector<std::string> operands(const Step& step) const {
        if (step.kind == StepKind::input) return {"X"};
        if (step.kind == StepKind::loss) return {buffer(plan_.output)};
        std::vector<std::string> found;
        found.reserve(step.products.size() + step.identities.size() + 3);
        for (const Product& p : step.products)
            found.push_back(buffer(p.rows) + "*" + name(p.weight) + (step.kind == StepKind::forward ? "" : "^T"));
        if (step.bias >= 0) found.push_back(name(step.bias));
        for (BufferId id : step.identities) found.push_back(buffer(id));
        const bool normalised = step.branch.norm >= 0 && step.kind != StepKind::moments;
        if (step.branch.z >= 0) found.push_back((normalised ? "norm" : "") + buffer(step.branch.z));
        for (BufferId id : {step.delta, step.gate_h, step.gate_t, step.gate_x})
            if (id >= 0) found.push_back(buffer(id));
        return found;
    }

    const Plan& plan_;
    const ParameterList& parameters_;
};

bool takes_weights(const Plan& plan) {
    for (const Phase& phase : plan.phases)
        for (const Step& step : phase.steps)
            if (step.kind == StepKind::weights) return true;
    return false;
}

}  // namespace

std::string explain(const Plan& plan, const ParameterList& parameters) {
    const Printer printer(plan, parameters);
    std::ostringstream out;
    for (std::size_t p = 0; p < plan.phases.size(); ++p) {
        out << "phase " << p << " (row tiles, depth first)\n";
        for (const Step& step : plan.phases[p].steps) out << "    " << printer.text(step) << "\n";
    }
    if (!plan.weights.empty() && !takes_weights(plan)) {
        out << "weights (after the last phase)\n";
        for (const WeightStep& w : plan.weights) out << "    " << printer.text(w) << "\n";
    }
    out << "arena: " << plan.row_elements << " elements per row of the batch, " << plan.tile_elements
        << " per row of each thread's tile";
    const char* const time = plan.tile_local ? "steps" : "phases";
    const bool stores_input = plan.phases.front().steps.front().kind == StepKind::input;
    for (std::size_t id = stores_input ? 0 : 1; id < plan.buffers.size(); ++id) {
        const BufferInfo& b = plan.buffers[id];
        out << "\n    [" << b.name << "] width " << b.width << ", offset " << b.offset
            << (b.of_tile ? " of the tile" : "") << ", alive in " << time << " " << b.first_use << " to " << b.last_use;
    }
    return out.str();
}

}  // namespace resnetcore

#include "topology/made_again.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "topology/buffers.h"

namespace resnetcore {
namespace {

constexpr int none = -1, several = -2;  // instead of a phase's number

bool is_of_norm_alone(const Step& step) {
    return step.kind == StepKind::forward && step.branch.norm >= 0 && step.branch.dropout == 0 && step.dropout == 0 &&
           step.products.empty() && step.identities.empty();
}

bool goes_forward(const Step& step) {
    return step.kind == StepKind::forward || step.kind == StepKind::moments || step.kind == StepKind::gate;
}

int with(int phase, int other) {
    if (phase == none || phase == other) return other;
    return other == none ? phase : several;
}

// Of every buffer, the phase that reads it going back.
std::vector<int> readers_going_back(const Plan& plan) {
    std::vector<int> readers(plan.buffers.size(), none);
    for (std::size_t p = 0; p < plan.phases.size(); ++p)
        for (const Step& step : plan.phases[p].steps) {
            if (goes_forward(step)) continue;
            visit_reads(plan, step, [&](BufferId id) {
                if (id >= 0) readers[id] = with(readers[id], static_cast<int>(p));
            });
        }
    return readers;
}

// The same once more, ahead of the first step of a phase that reads it.
void make_again(Plan& plan, Step& maker, Phase& phase) {
    Step step = maker;
    const BufferId kept = maker.out;
    maker.argument = -1;
    BufferInfo again = plan.buffers[kept];
    again.name += " again";
    plan.buffers[kept].is_a = false;
    step.out = static_cast<BufferId>(plan.buffers.size());
    plan.buffers.push_back(std::move(again));
    std::size_t first = phase.steps.size();
    for (std::size_t s = phase.steps.size(); s-- > 0;)
        visit_reads(plan, phase.steps[s], [&](BufferId& id) {
            if (id == kept) id = step.out;
            if (id >= 0 && (id == step.out || id == step.argument)) first = s;
        });
    phase.steps.insert(phase.steps.begin() + static_cast<std::ptrdiff_t>(first), std::move(step));
}

}  // namespace

void make_again(Plan& plan) {
    const std::vector<int> readers = readers_going_back(plan);
    for (std::size_t p = 0; p < plan.phases.size(); ++p)
        for (Step& step : plan.phases[p].steps) {
            if (!is_of_norm_alone(step) || step.out == plan.output) continue;
            if (static_cast<std::size_t>(step.out) >= readers.size()) continue;  // made again
            const int reader = with(readers[step.out], step.argument < 0 ? none : readers[step.argument]);
            if (reader > static_cast<int>(p)) make_again(plan, step, plan.phases[reader]);
        }
}

}  // namespace resnetcore

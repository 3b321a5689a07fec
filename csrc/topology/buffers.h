// What a step reads and writes.
#pragma once

#include "topology/plan.h"

namespace resnetcore {

// visit(BufferId&) what the step reads, -1 included, of a plan and a step that may be constant. The loss reads the
// plan's output beside it.
template <class AnyPlan, class AnyStep, class Visit>
void visit_reads(AnyPlan& plan, AnyStep& s, Visit visit) {
    if (s.weights >= 0) visit(plan.weights[s.weights].a), visit(plan.weights[s.weights].delta);
    for (auto& product : s.products) visit(product.rows);
    for (auto& id : s.identities) visit(id);
    visit(s.branch.z), visit(s.saved), visit(s.delta);
    visit(s.gate_h), visit(s.gate_t), visit(s.gate_x);
}

template <class Visit>
void visit_writes(const Step& s, Visit visit) {
    for (BufferId id : {s.out, s.argument, s.d_h, s.d_t, s.d_x}) visit(id);
}

}  // namespace resnetcore

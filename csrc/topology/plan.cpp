#include "topology/plan.h"

#include <algorithm>

#include "math/activation.h"
#include "topology/made_again.h"
#include "topology/memory.h"

namespace resnetcore {
namespace {

// Everything that reads an activation, as seen by its gradient: products δ·Wᵀ and plain terms.
struct Gradient {
    std::vector<Product> products;
    std::vector<BufferId> identities;
};

Step step_of(StepKind kind, std::int64_t layer, std::int64_t width) {
    Step step;
    step.kind = kind;
    step.layer = layer;
    step.width = width;
    return step;
}

class Planner {
public:
    Planner(const Topology& topology, const ParameterList& parameters, const PlanOptions& options)
        : topology_(topology),
          parameters_(parameters),
          options_(options),
          identity_(find_activation("identity")),
          relu_(find_activation("relu")) {}

    Plan make() {
        plan_.phases.emplace_back();
        activations_.push_back(activation(0));
        if (options_.stores_input) {
            Step step = step_of(StepKind::input, 0, topology_.inputs);
            step.out = activations_[0];
            add(std::move(step));
        }
        gradients_.resize(topology_.depth() + 1);
        work_.resize(topology_.depth() + 1);
        for (std::int64_t number = 1; number <= topology_.depth(); ++number) forward(number);
        plan_.output = activations_.back();
        if (options_.backward) backward_all();
        if (plan_.phases.back().steps.empty()) plan_.phases.pop_back();
        // One phase that takes its weight gradients with it leaves nothing to read, nor does inference; where forward
        // is a run of its own, it leaves what is kept.
        const bool inference = !options_.training && !options_.backward && !options_.keep_activations;
        plan_.tile_local =
            inference || (options_.weights_by_tile && plan_.phases.size() == (options_.given_gradient ? 2 : 1));
        if (options_.weights_by_tile) make_again(plan_);
        lay_out(plan_, read_afterwards(), options_);
        return std::move(plan_);
    }

private:
    // Buffers that a layer's backward reads again.
    struct Work {
        BufferId input = -1;  // what the normal path's weight multiplies
        BufferId z = -1;      // the stored normal path
        BufferId saved = -1;  // of g
        bool saved_is_argument = false;
        BufferId h = -1, t = -1;
    };

    BufferId buffer(const std::string& name, std::int64_t width) {
        BufferInfo info;
        info.name = name;
        info.width = width;
        plan_.buffers.push_back(std::move(info));
        return static_cast<BufferId>(plan_.buffers.size()) - 1;
    }
    BufferId activation(std::int64_t number) {
        const BufferId id = buffer(std::to_string(number), topology_.width(number));
        plan_.buffers[id].activation_of = static_cast<int>(number);
        return id;
    }
    static std::string name(std::int64_t number, const char* what) { return std::to_string(number) + "." + what; }
    Step& add(Step step) {
        auto& steps = plan_.phases.back().steps;
        plan_.max_terms = std::max(
            {plan_.max_terms, static_cast<int>(step.products.size()), static_cast<int>(step.identities.size())});
        steps.push_back(std::move(step));
        return steps.back();
    }
    void end_phase() { plan_.phases.emplace_back(); }
    const LayerParameters& own(std::int64_t number) const { return parameters_.layers[number - 1]; }

    BranchInfo branch_info(std::int64_t number, BufferId z, bool normalised, double dropout) const {
        return {z, normalised ? static_cast<int>(number) : -1, options_.training ? dropout : 0,
                static_cast<std::uint32_t>(2 * number + 1)};
    }
    void add_moments(std::int64_t number, BufferId z) {
        if (!options_.training) return;  // inference has the running statistics
        Step step = step_of(StepKind::moments, number, plan_.buffers[z].width);
        step.branch = branch_info(number, z, true, 0);
        add(std::move(step));
        end_phase();
    }

    // u = g(norm(a_prev)), the input of a pre-activation layer's product.
    BufferId pre_activation(std::int64_t number, BufferId in) {
        const Layer& layer = topology_.layer(number);
        Work& work = work_[number];
        if (layer.batch_norm) add_moments(number, in);
        Step step = step_of(StepKind::forward, number, plan_.buffers[in].width);
        step.branch = branch_info(number, in, layer.batch_norm, 0);
        step.activation = layer.activation;
        step.out = buffer(name(number, "input"), step.width);
        keep_for_derivative(number, step, false);
        work.input = step.out;
        add(std::move(step));
        return work.input;
    }

    void keep_for_derivative(std::int64_t number, Step& step, bool output_is_masked) {
        if (!options_.backward) return;
        Work& work = work_[number];
        work.saved_is_argument = activation_needs_argument(step.activation) ||
                                 (output_is_masked && step.activation != identity_ && step.activation != relu_);
        if (work.saved_is_argument) step.argument = buffer(name(number, "argument"), step.width);
        work.saved = work.saved_is_argument ? step.argument : step.out;
    }

    void forward(std::int64_t number) {
        const Layer& layer = topology_.layer(number);
        const BufferId previous = activations_[number - 1];
        const BufferId in = layer.pre ? pre_activation(number, previous) : previous;
        work_[number].input = in;
        const bool norm_after = layer.batch_norm && !layer.pre;
        const bool stored = options_.training && (norm_after || layer.branch_dropout > 0);

        Step step = step_of(StepKind::forward, number, layer.width);
        if (stored) {
            Step branch = step_of(StepKind::forward, number, layer.width);
            branch.products = {{in, own(number).weight}};
            branch.bias = own(number).bias;
            branch.activation = identity_;
            branch.out = work_[number].z = buffer(name(number, "branch"), layer.width);
            plan_.buffers[branch.out].branch = true;
            add(std::move(branch));
            if (norm_after) add_moments(number, work_[number].z);
            step.branch = branch_info(number, work_[number].z, norm_after, layer.branch_dropout);
        } else {
            step.products.push_back({in, own(number).weight});
            step.bias = own(number).bias;
        }
        for (std::size_t i = 0; i < layer.skips.size(); ++i) {
            const BufferId from = activations_[number - layer.skips[i].back];
            if (layer.skips[i].kind == SkipKind::identity)
                step.identities.push_back(from);
            else
                step.products.push_back({from, own(number).skips[i]});
        }
        step.activation = layer.pre ? identity_ : layer.activation;
        const double dropout = options_.training ? layer.dropout : 0;
        if (!layer.gate) step.dropout = dropout, step.dropout_site = site(number);
        step.out = layer.gate ? buffer(name(number, "hidden"), layer.width) : activation(number);
        if (!layer.pre) keep_for_derivative(number, step, step.dropout > 0);
        const BufferId out = step.out;
        add(std::move(step));
        activations_.push_back(layer.gate ? gate(number, out, dropout) : out);
    }

    static std::uint32_t site(std::int64_t number) { return static_cast<std::uint32_t>(2 * number); }

    BufferId gate(std::int64_t number, BufferId h, double dropout) {
        const std::int64_t width = topology_.width(number);
        Step t = step_of(StepKind::forward, number, width);
        t.products = {{activations_[number - 1], own(number).gate_weight}};
        t.bias = own(number).gate_bias;
        t.activation = find_activation("sigmoid");
        t.out = work_[number].t = buffer(name(number, "gate"), width);
        add(std::move(t));
        Step step = step_of(StepKind::gate, number, width);
        step.gate_h = work_[number].h = h;
        step.gate_t = work_[number].t;
        step.gate_x = activations_[number - 1];
        step.dropout = dropout;
        step.dropout_site = site(number);
        const BufferId out = step.out = activation(number);
        add(std::move(step));
        return out;
    }

    void backward_all() {
        const std::int64_t depth = topology_.depth();
        if (options_.given_gradient) {
            end_phase();
            plan_.backward_phase = static_cast<int>(plan_.phases.size()) - 1;
        }
        const StepKind source = options_.given_gradient ? StepKind::given : StepKind::loss;
        Step loss = step_of(source, depth, topology_.width(depth));
        const BufferId out = loss.out = buffer("loss.gradient", loss.width);
        add(std::move(loss));
        gradients_[depth].identities.push_back(out);
        for (std::int64_t number = depth; number >= 1; --number) backward(number);
        if (options_.input_gradient)
            plan_.input_gradient =
                backward_data(0, gradients_[0], 0, step_of(StepKind::backward_data, 0, 0), "input.gradient");
    }

    // Sums what `gradient` has collected; `like` carries the derivative and the dropout of the step to undo.
    BufferId backward_data(std::int64_t number, const Gradient& gradient, std::int64_t width, const Step& like,
                           const char* what) {
        const bool plain = like.activation == identity_ && like.dropout == 0;
        if (plain && gradient.products.empty() && gradient.identities.size() == 1) return gradient.identities[0];
        Step step = like;
        step.kind = StepKind::backward_data;
        step.layer = number;
        step.width = width ? width : topology_.width(number);
        step.products = gradient.products;
        step.identities = gradient.identities;
        if (step.activation == identity_) step.saved = -1;
        return add_out(step, name(number, what));
    }
    BufferId add_out(Step& step, const std::string& buffer_name) {
        const BufferId out = step.out = buffer(buffer_name, step.width);
        add(std::move(step));
        return out;
    }

    // Whether anyone needs the gradient of this activation.
    bool wanted(std::int64_t number) const { return number > 0 || options_.input_gradient; }
    void into(std::int64_t number, Product product) {
        if (wanted(number)) gradients_[number].products.push_back(product);
    }
    void into(std::int64_t number, BufferId term) {
        if (wanted(number)) gradients_[number].identities.push_back(term);
    }

    void backward(std::int64_t number) {
        const Layer& layer = topology_.layer(number);
        Step undo = step_of(StepKind::backward_data, 0, 0);
        undo.dropout = layer.dropout;
        undo.dropout_site = site(number);
        const bool direct = !layer.gate && !layer.pre;
        undo.activation = direct ? layer.activation : identity_;
        undo.saved = direct ? work_[number].saved : -1;
        undo.saved_is_argument = work_[number].saved_is_argument;
        undo.saved_has_dropout = undo.dropout > 0 && undo.activation == relu_;
        BufferId delta = backward_data(number, gradients_[number], 0, undo, "delta");
        if (layer.gate) delta = gate_backward(number, delta);
        skips_backward(number, delta);
        const BufferId d_branch = layer.pre ? undo_branch_dropout(number, delta) : undo_norm(number, delta);
        add_weights({own(number).weight, own(number).bias, work_[number].input, d_branch}, number);
        if (layer.pre)
            pre_backward(number, d_branch);
        else
            into(number - 1, Product{d_branch, own(number).weight});
    }

    void add_weights(const WeightStep& weights, std::int64_t number) {
        plan_.weights.push_back(weights);
        plan_.buffers[weights.a].is_a = plan_.buffers[weights.delta].is_delta = true;
        if (!options_.weights_by_tile) return;
        Step step = step_of(StepKind::weights, number, plan_.buffers[weights.delta].width);
        step.weights = static_cast<int>(plan_.weights.size()) - 1;
        add(std::move(step));
    }

    void skips_backward(std::int64_t number, BufferId delta) {
        const Layer& layer = topology_.layer(number);
        for (std::size_t i = 0; i < layer.skips.size(); ++i) {
            const std::int64_t from = number - layer.skips[i].back;
            const int weight = own(number).skips[i];
            if (layer.skips[i].kind == SkipKind::identity)
                into(from, delta);
            else
                into(from, Product{delta, weight});
            if (layer.skips[i].kind == SkipKind::learned) add_weights({weight, -1, activations_[from], delta}, number);
        }
    }

    // Back through a branch that was stored: its dropout, then its norm.
    BufferId undo_norm(std::int64_t number, BufferId delta) {
        const Layer& layer = topology_.layer(number);
        if (!layer.batch_norm) return undo_branch_dropout(number, delta);
        return norm_backward(number, delta, branch_info(number, work_[number].z, true, layer.branch_dropout),
                             "branch.delta");
    }
    BufferId undo_branch_dropout(std::int64_t number, BufferId delta) {
        const Layer& layer = topology_.layer(number);
        if (layer.branch_dropout == 0) return delta;
        Step step = step_of(StepKind::norm_backward, number, layer.width);
        step.branch = branch_info(number, -1, false, layer.branch_dropout);
        step.delta = delta;
        return add_out(step, name(number, "branch.delta"));
    }
    BufferId norm_backward(std::int64_t number, BufferId delta, const BranchInfo& branch, const char* what) {
        Step sums = step_of(StepKind::norm_sums, number, plan_.buffers[branch.z].width);
        sums.branch = branch;
        sums.delta = delta;
        Step apply = sums;
        apply.kind = StepKind::norm_backward;
        add(std::move(sums));
        end_phase();
        return add_out(apply, name(number, what));
    }

    void pre_backward(std::int64_t number, BufferId d_branch) {
        const Layer& layer = topology_.layer(number);
        if (!layer.batch_norm && !wanted(number - 1)) return;
        Step undo = step_of(StepKind::backward_data, 0, 0);
        undo.activation = layer.activation;
        undo.saved = work_[number].saved;
        undo.saved_is_argument = work_[number].saved_is_argument;
        Gradient gradient{{{d_branch, own(number).weight}}, {}};
        const std::int64_t width = topology_.width(number - 1);
        BufferId d = backward_data(number, gradient, width, undo, "input.delta");
        if (layer.batch_norm)
            d = norm_backward(number, d, branch_info(number, activations_[number - 1], true, 0), "norm.delta");
        into(number - 1, d);
    }

    BufferId gate_backward(std::int64_t number, BufferId gradient) {
        const Layer& layer = topology_.layer(number);
        Step step = step_of(StepKind::gate_backward, number, layer.width);
        step.delta = gradient;
        step.gate_h = work_[number].h;
        step.gate_t = work_[number].t;
        step.gate_x = activations_[number - 1];
        step.activation = layer.activation;
        step.saved = work_[number].saved;
        step.saved_is_argument = work_[number].saved_is_argument;
        const BufferId d_h = step.d_h = buffer(name(number, "hidden.delta"), layer.width);
        const BufferId d_t = step.d_t = buffer(name(number, "gate.delta"), layer.width);
        const BufferId d_x = step.d_x = buffer(name(number, "carry.gradient"), layer.width);
        add(std::move(step));
        into(number - 1, d_x);
        into(number - 1, Product{d_t, own(number).gate_weight});
        add_weights({own(number).gate_weight, own(number).gate_bias, activations_[number - 1], d_t}, number);
        return d_h;
    }

    // What is read once the last phase is over.
    std::vector<BufferId> read_afterwards() const {
        std::vector<BufferId> ids{plan_.output, plan_.input_gradient};
        if (!options_.weights_by_tile)
            for (const WeightStep& w : plan_.weights) ids.insert(ids.end(), {w.a, w.delta});
        if (options_.keep_activations) {
            ids.insert(ids.end(), activations_.begin(), activations_.end());
            for (const Work& work : work_) ids.push_back(work.z);
        }
        return ids;
    }

    const Topology& topology_;
    const ParameterList& parameters_;
    const PlanOptions& options_;
    const int identity_, relu_;
    Plan plan_;
    std::vector<BufferId> activations_;
    std::vector<Gradient> gradients_;
    std::vector<Work> work_;
};

}  // namespace

Plan make_plan(const Topology& topology, const ParameterList& parameters, const PlanOptions& options) {
    return Planner(topology, parameters, options).make();
}

}  // namespace resnetcore

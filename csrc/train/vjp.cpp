#include "train/vjp.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "runtime/cost_model.h"

namespace resnetcore {
namespace {

template <class T>
Plan plan_of(const Model<T>& model, Strategy strategy, bool input_gradient) {
    PlanOptions options;
    // Frozen norms are steps of their own too: their weights have gradients.
    options.training = options.backward = options.given_gradient = true;
    options.weights_by_tile = strategy == Strategy::by_tile;
    options.input_gradient = input_gradient;
    options.storage = storage_of<T>;
    options.stores_input = !computes_itself<T>;
    return make_plan(model.topology(), model.parameters(), options);
}

// bfloat16x2 on the host alone, and there on what multiplies bfloat16: a tape's offset is in its header, which only the
// host writes.
template <class T>
VjpOptions supported(const VjpOptions& options, const Device& device) {
    if constexpr (std::is_same_v<T, bfloat16x2>)
        if (!device.is_host() || !device.has_bfloat16x2())
            throw BuildFeatureError(
                "ResidualStack: a program whose products are of matmul precision \"high\" has no kernels on " +
                device.name() + "; trace or export it again here, or with matmul precision \"highest\"");
    return options;
}

Topology without_dropout(Topology topology) {
    for (Layer& layer : topology.layers) layer.dropout = layer.branch_dropout = 0;
    return topology;
}

}  // namespace

template <class T>
Vjp<T>::Vjp(const Topology& topology, const VjpOptions& options, Device& device)
    : options_(supported<T>(options, device)),
      model_(options.training ? topology : without_dropout(topology), 0, device),
      units_(weight_units(model_, plan_of(model_, Strategy::by_layer, options.input_gradient).weights)),
      gradients_(model_, units_),
      lent_(model_, options.transposed),
      staged_dropout_(device),
      moved_(device) {
    const CurrentDevice current(device);
    if (!options.training) model_.norms().freeze();
    for (const Norm<T>& norm : model_.norms().all()) norm_bytes_ += 4 * norm.width * std::int64_t{sizeof(Compute<T>)};
    norm_bytes_ = (norm_bytes_ + 63) / 64 * 64;
    for (Strategy strategy : {Strategy::by_layer, Strategy::by_tile}) {
        Plan plan = plan_of(model_, strategy, options.input_gradient);
        if (strategy == Strategy::by_tile && !plan.tile_local) continue;
        // A tape is as large on every device: who traces a program may know of none.
        kept_elements_ = std::max(kept_elements_, plan.kept_elements);
        if (strategy == Strategy::by_tile && !device.is_host()) continue;
        executors_[static_cast<int>(strategy)] = std::make_unique<Executor>(
            std::move(plan), model_.device(), model_.store(), model_.norms(), nullptr, 2 * model_.weight_bytes());
    }
}

template <class T>
Strategy Vjp<T>::strategy_of(const VjpPass<T>& pass) const {
    return has_tiles() ? choose_strategy(step_shape(model_, pass.rows)).strategy : Strategy::by_layer;
}

template <class T>
typename Vjp<T>::Header Vjp<T>::new_header(const VjpPass<T>& pass, Strategy strategy) const {
    const auto address = reinterpret_cast<std::uintptr_t>(pass.tape) + header_bytes + norm_bytes_;
    return {strategy, static_cast<std::int32_t>(-address % row_alignment<T>)};
}

// Where a number lies says which of its halves are where: so what has moved by less than a row's boundary moves on.
template <class T>
T* Vjp<T>::kept(const VjpPass<T>& pass, const Header& header) {
    const std::int64_t offset = std::clamp<std::int64_t>(header.offset, 0, most_offset);  // whatever came back
    T* const found = reinterpret_cast<T*>(static_cast<char*>(pass.tape) + header_bytes + norm_bytes_ + offset);
    if (reinterpret_cast<std::uintptr_t>(found) % row_alignment<T> == 0) return found;
    moved_.reserve(pass.rows * kept_elements_);
    device().copy(moved_.data(), found, static_cast<std::size_t>(pass.rows * tape_bytes_of_row()));
    return moved_.data();
}

template <class T>
Frame<T> Vjp<T>::frame_of(const VjpPass<T>& pass, T* kept) {
    dropout_ = {pass.seed, 0, 0};
    Frame<T> frame;
    frame.input = pass.x;
    frame.kept = kept;
    frame.rows = pass.rows;
    frame.dropout = staged_dropout_.values(&dropout_, 1);
    return frame;
}

// Room, and the number of threads that pay.
template <class T>
int Vjp<T>::prepare(const VjpPass<T>& pass, Strategy strategy) {
    strategy_ = strategy;
    const auto& kernels = model_.kernels();
    const int threads =
        device().is_host()
            ? useful_training_threads(pass.rows, 2 * model_.weight_elements(), product_sizes(model_, pass.rows),
                                      kernels.product_speed, kernels.row_block, get_num_threads())
            : 1;
    executor().prepare(pass.rows, threads);
    gradients_.prepare(pass.rows, threads, lent_.kept(strategy == Strategy::by_tile),
                       executor().divides_columns(pass.rows, threads));
    lent_.prepare(threads);
    unit_queue_.reserve(threads);
    unit_queue_.reset(gradients_.groups(), threads);
    return threads;
}

// The norms' coefficients of a pass to its tape, or from it.
template <class T>
void Vjp<T>::visit_norms(void* tape, bool restore) {
    auto* at = reinterpret_cast<Compute<T>*>(static_cast<char*>(tape) + header_bytes);
    for (Norm<T>& norm : model_.norms().all())
        for (auto* array : {&norm.mean, &norm.inverse_deviation, &norm.scale, &norm.shift}) {
            if (norm.width == 0) continue;
            Compute<T>*to = at, *from = array->data();
            if (restore) std::swap(to, from);
            device().copy(to, from, array->bytes());
            at += norm.width;
        }
}

template <class T>
void Vjp<T>::forward(const VjpPass<T>& pass, Compute<T>* out, const std::vector<Compute<T>*>& statistics) {
    const auto held = model_.hold();
    if (pass.rows == 0) return;
    if (options_.training) check_training_rows(topology(), pass.rows, 1, "ResidualStack");
    const auto loan = lent_.lend(pass.values, Half::forward, nullptr);
    const int threads = prepare(pass, strategy_of(pass));
    const Header header = new_header(pass, strategy_);
    if (device().is_host()) std::memcpy(pass.tape, &header, sizeof header);
    Frame<T> frame = frame_of(pass, kept(pass, header));
    frame.outputs = {out, outputs()};
    run_on_team(
        [&](Team& team) {
            lent_.write(team);
            if (team.rank() == 0) {
                if (model_.norms().frozen()) model_.norms().use_running_statistics();
                executor().begin(pass.rows, team.size());
            }
            team.barrier();
            executor().run_forward(team, frame);
        },
        threads);
    visit_norms(pass.tape, false);
    give_statistics(statistics);
}

template <class T>
void Vjp<T>::give_statistics(const std::vector<Compute<T>*>& statistics) {
    for (const Norm<T>& norm : model_.norms().all()) {
        if (norm.width == 0) continue;
        const auto give = [&](int id, const AlignedArray<Compute<T>>& from) {
            if (statistics[id]) device().copy(statistics[id], from.data(), from.bytes());
        };
        give(norm.parameters->running_mean, norm.next_mean);
        give(norm.parameters->running_var, norm.next_var);
    }
}

template <class T>
void Vjp<T>::backward(const VjpPass<T>& pass, const Compute<T>* d_out, Compute<T>* d_x,
                      const std::vector<Compute<T>*>& gradients) {
    const auto held = model_.hold();
    if (pass.rows == 0) {
        for (std::size_t id = 0; id < gradients.size(); ++id)
            if (gradients[id])
                device().clear(gradients[id],
                               static_cast<std::size_t>(parameters().all[id].size()) * sizeof(Compute<T>));
        return;
    }
    Header header{Strategy::by_layer, 0};
    if (device().is_host()) std::memcpy(&header, pass.tape, sizeof header);
    const bool by_tile = has_tiles() && header.strategy == Strategy::by_tile;
    const auto loan = lent_.lend(pass.values, Half::backward, &gradients);
    const int threads = prepare(pass, by_tile ? Strategy::by_tile : Strategy::by_layer);
    Frame<T> frame = frame_of(pass, kept(pass, header));
    frame.given = {d_out, outputs()};
    if (d_x) {
        frame.output = executor().plan().input_gradient;
        frame.output_rows = {d_x, topology().inputs};
    }
    run_on_team(
        [&](Team& team) {
            lent_.write(team);
            if (team.rank() == 0) {
                visit_norms(pass.tape, true);
                executor().begin(pass.rows, team.size());
            }
            team.barrier();
            executor().run_backward(team, frame, &gradients_);
            if (!by_tile) lent_.take_units(gradients_, unit_queue_, team.rank(), executor(), frame);
            team.barrier();
            lent_.give(team, gradients_, lent_.kept(by_tile));
        },
        threads);
}

template <class T>
double Vjp<T>::loss(const VjpPass<T>& pass, const CheckedTargets<T>& targets, Compute<T>* d_x,
                    const std::vector<Compute<T>*>& gradients, const std::vector<Compute<T>*>& statistics) {
    const auto held = model_.hold();
    if (!one_pass_) one_pass_ = std::make_unique<Backpropagation<T>>(model_, options_.input_gradient);
    const auto loan = lent_.lend(pass.values, Half::both, &gradients);
    Batch<T> batch;
    batch.x = pass.x;
    batch.rows = pass.rows;
    batch.seed = pass.seed;
    batch.target = targets.get();
    batch.d_x = {d_x, topology().inputs};
    const PassResult result = one_pass_->gradients(batch, lent_);
    give_statistics(statistics);
    if (result.finite) return result.loss;
    constexpr auto nan = std::numeric_limits<Compute<T>>::quiet_NaN();
    for (std::size_t id = 0; id < gradients.size(); ++id)
        if (gradients[id]) std::fill_n(gradients[id], parameters().all[id].size(), nan);
    if (d_x) std::fill_n(d_x, pass.rows * topology().inputs, nan);
    return result.loss;
}

template class Vjp<float>;
template class Vjp<double>;
template class Vjp<bfloat16>;
template class Vjp<bfloat16x2>;

}  // namespace resnetcore

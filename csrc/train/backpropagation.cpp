#include "train/backpropagation.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "runtime/cost_model.h"
#include "train/snapshot.h"

namespace resnetcore {
namespace {

bool materialises(const PassOptions& options) {
    return options.micro_batches > 1 || options.clip_norm > 0 || options.keep_gradients;
}

// After another error, which is the one to tell of.
void wait_for(Device& device) noexcept {
    try {
        device.synchronize();
    } catch (const std::exception&) {
        return;
    }
}

// Where it throws, nothing that it has asked for is under way any more: a batch on its way is read from memory of the
// caller's, or from what the next one is written to.
template <class Work>
void or_wait(Device& device, const Work& work) {
    try {
        work();
    } catch (...) {
        wait_for(device);
        throw;
    }
}

}  // namespace

template <class T>
Backpropagation<T>::Flight::Flight(const Model<T>& model)
    : staged(model.device(), model.topology().inputs, model.outputs()),
      row_loss(model.device()),
      report(model.device(), 1),
      fetched(model.device(), sizeof(Report)),
      landed(model.device()) {}

template <class T>
Backpropagation<T>::Backpropagation(Model<T>& model, bool input_gradient)
    : model_(model),
      input_gradient_(input_gradient),
      units_(weight_units(model, executor(Strategy::by_layer).plan().weights)),
      gradients_(model, units_),
      shut_(model.device(), 1),
      recordings_(model.device()) {}

template <class T>
BatchExecutor<T>& Backpropagation<T>::executor(Strategy strategy) {
    auto& made = executors_[static_cast<int>(strategy)];
    if (!made)
        made = std::make_unique<Executor>(model_.training_plan(strategy == Strategy::by_tile, input_gradient_),
                                          model_.device(), model_.store(), model_.norms(), nullptr,
                                          2 * model_.weight_bytes());
    return *made;
}

template <class T>
void Backpropagation<T>::prepare(const Flight& flight) {
    const PassOptions& options = flight.options;
    const std::int64_t rows = (flight.whole.rows + options.micro_batches - 1) / options.micro_batches;
    const Choice choice = choose_strategy(step_shape(model_, rows));
    threads_ = choice.threads;
    strategy_ = choice.strategy;
    path_ = choice.path;
    const UsedPath path(model_.device(), path_);
    executor(strategy_).prepare(rows, threads_);
    using Kept = typename WeightGradients<T>::Kept;
    const bool by_tile = strategy_ == Strategy::by_tile;
    gradients_.prepare(rows, threads_,
                       lent_                              ? lent_->kept(by_tile)
                       : by_tile || materialises(options) ? Kept::in_arrays
                                                          : Kept::nowhere,
                       executor(strategy_).divides_columns(rows, threads_));
    if (lent_) lent_->prepare(threads_);
    unit_queue_.reserve(threads_);
}

// Sums of losses that the device's kernels leave of the first micro-batches.
template <class T>
std::int64_t Backpropagation<T>::loss_sums(std::int64_t rows, const PassOptions& options, std::int64_t count) const {
    const std::int64_t of_sum = model_.kernels().loss_rows;
    if (of_sum == 1) return 0;
    std::int64_t sums = 0;
    for (std::int64_t m = 0; m < count; ++m) {
        const std::int64_t begin = rows * m / options.micro_batches, end = rows * (m + 1) / options.micro_batches;
        sums += (end - begin + of_sum - 1) / of_sum;
    }
    return sums;
}

template <class T>
Frame<T> Backpropagation<T>::micro_batch(const Frame<T>& whole, const PassOptions& options, std::int64_t index) const {
    const std::int64_t begin = whole.rows * index / options.micro_batches;
    const std::int64_t end = whole.rows * (index + 1) / options.micro_batches;
    Frame<T> frame = whole;
    if (whole.target.loss_sums) frame.target.loss_sums += loss_sums(whole.rows, options, index);
    frame.input.data += begin * whole.input.stride;
    frame.rows = end - begin;
    frame.first_row = begin;
    frame.continues = index > 0;
    if (whole.output_rows.data) {
        frame.output = executor().plan().input_gradient;
        frame.output_rows.data += begin * whole.output_rows.stride;
    }
    return frame;
}

template <class T>
PassResult Backpropagation<T>::gradients(const Batch<T>& batch, LentParameters<T>& lent) {
    struct Lent {
        LentParameters<T>*& to;
        ~Lent() { to = nullptr; }
    } const until_return{lent_ = &lent};
    PassOptions options;
    options.keep_gradients = true;
    return run(batch, options, nullptr);
}

template <class T>
typename Backpropagation<T>::Flight& Backpropagation<T>::flight(int place) {
    auto& made = flights_[static_cast<std::size_t>((first_ + place) % most_in_flight)];
    if (!made) made = std::make_unique<Flight>(model_);
    return *made;
}

template <class T>
void Backpropagation<T>::begin(const Batch<T>& batch, const PassOptions& options, OptimizerState<T>* state) {
    if (in_flight_ == 0) first_ = 0;  // one after another, they use the same memory
    if (in_flight_ > 0 && flight(in_flight_ - 1).failure) std::rethrow_exception(flight(in_flight_ - 1).failure);
    Flight& next = flight(in_flight_);
    next.row_loss.reserve(batch.rows + loss_sums(batch.rows, options, options.micro_batches));
    next.options = options;
    next.state = state;
    next.failure = nullptr;
    try {
        or_wait(model_.device(), [&] {
            next.whole = next.staged.take(batch, state ? state->hypers(batch.lr, in_flight_) : Hypers<T>{});
            next.whole.target.row_loss = next.row_loss.data();
            next.whole.measured = !options.keep_gradients;
            if (model_.kernels().loss_rows > 1) next.whole.target.loss_sums = next.row_loss.data() + batch.rows;
            launch(next);
        });
    } catch (...) {
        open();
        throw;
    }
    ++in_flight_;
}

// After a pass that failed half-way, and was waited for: it may have shut what comes after it, and nobody will look at
// what it said. One in flight that has done so is looked at, and opens again then.
template <class T>
void Backpropagation<T>::open() noexcept {
    for (int place = 0; place < in_flight_; ++place)
        if (flight(place).failure || !permits(&flight(place).answer().outcome)) return;
    try {
        model_.device().clear(shut_.data(), shut_.bytes());
        model_.device().synchronize();
    } catch (const std::exception&) {
        return;  // nor will anything else work
    }
}

template <class T>
void Backpropagation<T>::launch(Flight& flight) {
    prepare(flight);
    careful_ = false;
    report_ = flight.report.data();
    if (flight.state) flight.state->use(flight.staged.hypers());
    const UsedPath path(model_.device(), path_);
    recordings_.run(std::make_pair(path_, key(flight.whole, flight.options, flight.state)),
                    [&] { pass(flight.whole, flight.options, flight.state); });
    model_.device().fetch(flight.fetched.get(), report_, sizeof(Report));
    flight.landed.set();
}

// After the pass before it was made and counted: what goes wrong now is this one's to tell of.
template <class T>
void Backpropagation<T>::launch_again(Flight& flight) noexcept {
    try {
        or_wait(model_.device(), [&] { launch(flight); });
    } catch (...) {
        flight.failure = std::current_exception();
    }
}

template <class T>
PassResult Backpropagation<T>::finish() {
    PassResult result;
    try {
        result = judge(flight(0));
    } catch (...) {
        drop_all();
        throw;
    }
    if (!result.finite) {
        drop_all();
    } else {
        --in_flight_;
        first_ = (first_ + 1) % most_in_flight;
    }
    return result;
}

template <class T>
PassResult Backpropagation<T>::judge(Flight& flight) {
    if (flight.failure) std::rethrow_exception(flight.failure);
    Device& device = model_.device();
    flight.landed.wait();
    const PassOptions& options = flight.options;
    PassResult result;
    result.loss = flight.answer().outcome.loss;
    result.finite = flight.answer().outcome.finite;
    if (!permits(&flight.answer().outcome)) device.clear(shut_.data(), shut_.bytes());
    const bool may_overflow = flight.answer().outcome.may_overflow;
    if (may_overflow) {
        result.overflow = run_carefully(flight);
        result.finite = result.overflow.empty();
        if (!result.finite) return result;
    }
    if (materialises(options) && !options.keep_gradients) result.gradient_norm = flight.answer().gradient_norm;
    if (!result.finite && !lent_) result.bad_layer = first_bad_layer(flight.whole, options);
    if (result.finite && flight.state && !options.keep_gradients) {
        model_.parameters_changed();
        flight.state->count_step();
    }
    flight.staged.finish();
    if (may_overflow)  // those after it were not permitted
        for (int later = 1; later < in_flight_; ++later) launch_again(this->flight(later));
    return result;
}

// Waits until nothing of those after the first is read or written any more. They were not permitted, or the device
// fails, and then with all of them.
template <class T>
void Backpropagation<T>::drop_all() noexcept {
    const int all = std::exchange(in_flight_, 0);
    try {
        for (int later = 1; later < all; ++later) flight(later).landed.wait();
    } catch (...) {
        return;
    }
    open();
}

// The same pass again, now with its update; undone where that was not finite, or the device failed. The name of the
// parameter that was not.
template <class T>
std::string Backpropagation<T>::run_carefully(Flight& flight) {
    prepare(flight);  // what was begun since may have been too large for the memory that is left
    Snapshot<T> before(model_, *flight.state);
    careful_ = true;
    report_ = flight.report.data();
    flight.state->use(flight.staged.hypers());
    const UsedPath path(model_.device(), path_);
    std::string overflow;
    try {
        pass(flight.whole, flight.options, flight.state);
        model_.device().fetch(flight.fetched.get(), report_, sizeof(Report));
        overflow = before.first_overflow();
    } catch (...) {
        before.restore();
        throw;
    }
    if (overflow.empty())
        model_.norms().commit_running_statistics(nullptr);
    else
        before.restore();
    return overflow;
}

template <class T>
void Backpropagation<T>::pass(const Frame<T>& whole, const PassOptions& options, OptimizerState<T>* state) {
    executor().forget_magnitudes();
    gradients_.begin(threads_);
    run_on_team([&](Team& team) { team_body(team, whole, options, state); }, threads_);
}

template <class T>
void Backpropagation<T>::team_body(Team& team, const Frame<T>& whole, const PassOptions& options,
                                   OptimizerState<T>* state) {
    const bool by_tile = strategy_ == Strategy::by_tile, materialise = by_tile || materialises(options);
    if (lent_) lent_->write(team);
    for (std::int64_t m = 0; m < options.micro_batches; ++m) {
        const Frame<T> frame = micro_batch(whole, options, m);
        if (team.rank() == 0) {
            executor().begin(frame.rows, team.size());
            unit_queue_.reset(gradients_.groups(), team.size());
        }
        team.barrier();
        executor().run(team, frame, &gradients_);
        if (m + 1 == options.micro_batches) {
            if (team.rank() == 0) conclude(whole, options, state);
            team.barrier();
            if (model_.device().is_host() && !permits(permission())) return;
        }
        if (by_tile) continue;
        weights_by_layer(team, frame, materialise ? nullptr : state);
        team.barrier();
    }
    if (lent_) lent_->give(team, gradients_, lent_->kept(by_tile));
    if (options.keep_gradients) return;
    if (materialises(options)) gradients_.clip(team, options.clip_norm, &report_->gradient_norm, &report_->clip_factor);
    if (materialise) gradients_.update(team, *state, permission());
    if (team.rank() > 0) return;
    update_norms(model_, *state, permission());
    if (!careful_) model_.norms().commit_running_statistics(permission());
}

template <class T>
void Backpropagation<T>::conclude(const Frame<T>& whole, const PassOptions& options, const OptimizerState<T>* state) {
    const bool can_overflow = state && !options.keep_gradients && !careful_;
    const double* magnitudes = executor().magnitudes();
    const double* const sums = whole.target.loss_sums;
    model_.kernels().conclude({whole.rows, sums ? sums : whole.target.row_loss,
                               sums ? loss_sums(whole.rows, options, options.micro_batches) : whole.rows, magnitudes,
                               magnitudes + 1, can_overflow ? state->hyper(0) : nullptr, &report_->outcome,
                               model_.device().is_host() ? nullptr : shut_.data()});
}

template <class T>
void Backpropagation<T>::weights_by_layer(Team& team, const Frame<T>& frame, OptimizerState<T>* fused) {
    if (lent_) return lent_->take_units(gradients_, unit_queue_, team.rank(), executor(), frame);
    gradients_.take_units(
        unit_queue_, team.rank(), executor(), frame,
        [&](BackwardWeightsArgs<T>& args, const WeightStep& step) {
            if (fused)
                gradients_.direct(args, step, *fused, permission(), team.rank());
            else
                gradients_.direct(args, step, !frame.continues, team.rank());
        },
        [](const BackwardWeightsArgs<T>&, const WeightStep&) {});
}

// The pass keeps no activation that it does not need: the first micro-batch whose loss is not finite goes forward once
// more. −1 where there is no memory to look.
template <class T>
std::int64_t Backpropagation<T>::first_bad_layer(const Frame<T>& whole, const PassOptions& options) const {
    try {
        std::vector<double> losses(static_cast<std::size_t>(whole.rows));
        model_.device().download(losses.data(), whole.target.row_loss, losses.size() * sizeof(double));
        std::int64_t bad = 0;
        auto finite = [&](std::int64_t m) {
            const Frame<T> frame = micro_batch(whole, options, m);
            const double* loss = losses.data() + frame.first_row;
            return std::all_of(loss, loss + frame.rows, [](double l) { return std::isfinite(l); });
        };
        while (bad + 1 < options.micro_batches && finite(bad)) ++bad;
        Frame<T> frame = micro_batch(whole, options, bad);
        frame.output = -1;
        return model_.first_bad_layer(frame);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

template <class T>
const Compute<T>* Backpropagation<T>::gradient(int id) const {
    const Parameter& p = model_.parameters().all[id];
    if (p.role == Role::norm_weight) return model_.norms().of_layer(p.layer).d_weight.data();
    if (p.role == Role::norm_bias) return model_.norms().of_layer(p.layer).d_bias.data();
    return gradients_.array(id);
}

template class Backpropagation<float>;
template class Backpropagation<double>;
template class Backpropagation<bfloat16>;
template class Backpropagation<bfloat16x2>;

}  // namespace resnetcore

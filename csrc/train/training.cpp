#include "train/training.h"

#include <cmath>
#include <utility>

#include "base/text.h"

namespace resnetcore {
namespace {

void check(bool good, const std::string& operation, const char* what, const char* range, double value) {
    if (!good) throw ValueError(operation + ": " + what + " must be " + range + ", got " + number_text(value));
}

}  // namespace

void check_settings(const TrainingSettings& settings, const std::string& operation) {
    check_loss(settings.loss, operation);
    const OptimizerSettings& s = settings.optimizer;
    check(s.momentum >= 0 && s.momentum < 1, operation, "momentum", "in [0, 1)", s.momentum);
    check(s.beta1 >= 0 && s.beta1 < 1, operation, "beta1", "in [0, 1)", s.beta1);
    check(s.beta2 >= 0 && s.beta2 < 1, operation, "beta2", "in [0, 1)", s.beta2);
    check(s.eps > 0 && std::isfinite(s.eps), operation, "eps", "positive and finite", s.eps);
    check(s.weight_decay >= 0 && std::isfinite(s.weight_decay), operation, "weight_decay", "finite and not negative",
          s.weight_decay);
    check(settings.clip_norm >= 0 && std::isfinite(settings.clip_norm), operation, "clip_norm", "positive and finite",
          settings.clip_norm);
    check(settings.accumulate >= 1, operation, "accumulate", "at least 1", static_cast<double>(settings.accumulate));
}

template <class T>
Training<T>::Training(ModelPtr<T> trained, TrainingSettings numbers, const std::string& operation)
    : model(std::move(trained)), settings(std::move(numbers)), state(*model, settings.optimizer), pass_(*model, false) {
    check(static_cast<Compute<T>>(settings.optimizer.eps) > 0, operation, "eps",
          "above zero in the network's precision", settings.optimizer.eps);
    check_class_weight<T>(settings.loss, model->outputs(), operation);
}

template <class T>
Training<T>::~Training() {
    if (count_ == 0) return;
    try {
        const auto held = model->hold(this);
        settle();
    } catch (const std::exception&) {  // the device is another process's, or fails
        model->leave(nullptr);
    }
}

template <class T>
Batch<T> Training<T>::described(const BatchRows<T>& given, const CheckedTargets<T>& targets, double lr) const {
    Batch<T> batch;
    static_cast<BatchRows<T>&>(batch) = given;
    batch.target = targets.get();
    batch.targets_in = targets.in();
    batch.lr = lr;
    batch.step = static_cast<std::uint32_t>(state.steps() + pass_.in_flight());
    batch.seed = settings.seed;
    return batch;
}

template <class T>
PassOptions Training<T>::options() const {
    PassOptions options;
    options.micro_batches = settings.accumulate;
    options.clip_norm = settings.clip_norm;
    return options;
}

template <class T>
double Training<T>::step(const BatchRows<T>& batch, const CheckedTargets<T>& targets, double lr,
                         const std::string& operation) {
    const PassResult result = pass_.run(described(batch, targets, lr), options(), &state);
    if (!result.finite) {
        targets.check_labels_on(model->device());
        throw non_finite(result, operation, state.steps() + 1);
    }
    last_gradient_norm = result.gradient_norm;
    last_weight = targets.weight();
    ++steps_, ++steps_begun_;
    return result.loss;
}

template <class T>
void Training<T>::begin(const BatchRows<T>& batch, const CheckedTargets<T>& targets, double lr) {
    const auto held = model->hold(this);
    if (count_ > 0 && begun(count_ - 1).error) std::rethrow_exception(begun(count_ - 1).error);
    if (count_ == most) throw ValueError("step: finish an earlier one first");
    const Batch<T> whole = described(batch, targets, lr);
    pass_.begin(whole, options(), &state);
    begun(count_) = {};
    begun(count_++).weight = targets.weight();
    ++steps_begun_;
    model->leave(this);
    // Whose memory the pass reads may write to it next, or give it back.
    if (ahead() == 0 || whole.is_read_in_place()) settle();
}

template <class T>
double Training<T>::finish() {
    const auto held = model->hold(this);
    if (count_ == 0) throw ValueError("step: none was begun");
    settle(0);
    if (pass_.in_flight() == 0) model->leave(nullptr);
    const Begun one = begun(0);
    first_ = (first_ + 1) % most, --count_;
    if (one.error) steps_begun_ = steps_.load();  // those after it were dropped
    if (one.error) std::rethrow_exception(one.error);
    ++steps_;
    last_gradient_norm = one.result.gradient_norm;
    last_weight = one.weight;
    return one.result.loss;
}

template <class T>
void Training<T>::set_steps(std::int64_t steps) {
    state.set_steps(steps);
    steps_ = steps_begun_ = steps;
}

template <class T>
void Training<T>::settle() noexcept {
    for (int place = 0; place < count_; ++place) settle(place);
    model->leave(nullptr);
}

// Those before it are settled.
template <class T>
void Training<T>::settle(int place) noexcept {
    Begun& one = begun(place);
    if (one.settled) return;
    one.settled = true;
    try {
        one.result = pass_.finish();
        if (one.result.finite) return;
        one.error = std::make_exception_ptr(non_finite(one.result, "step", state.steps() + 1));
    } catch (...) {
        one.error = std::current_exception();
    }
    count_ = place + 1;
}

template <class T>
void check_lr(double lr, const std::string& operation) {
    const auto rounded = static_cast<Compute<T>>(lr);
    if (!(rounded > 0 && std::isfinite(rounded)))
        throw ValueError(operation + ": lr must be positive and finite in the network's precision, got " +
                         number_text(lr));
}

NonFiniteError non_finite(const PassResult& result, const std::string& operation, std::int64_t step) {
    std::string text = operation + ": ";
    text += result.overflow.empty() ? "the loss became " + number_text(result.loss)
                                    : "the update makes '" + result.overflow + "' NaN or infinite";
    if (step > 0) text += " at step " + std::to_string(step);
    const bool in_input = result.bad_layer == 0;
    if (result.bad_layer >= 0)
        text += "; the first layer with NaN or infinite values is layer " + std::to_string(result.bad_layer) +
                (in_input ? ", the input" : "");
    text += ". Nothing was updated; ";
    if (in_input) return NonFiniteError(text + "leave such rows out, or fill them in");
    if (result.overflow.empty() && result.bad_layer < 0) text += "look for NaN and infinity in y, or ";
    return NonFiniteError(text + "try a smaller lr or weight_decay, clip_norm, or a norm");
}

template class Training<float>;
template class Training<double>;
template class Training<bfloat16>;
template class Training<bfloat16x2>;
template void check_lr<float>(double, const std::string&);
template void check_lr<double>(double, const std::string&);
template void check_lr<bfloat16>(double, const std::string&);
template void check_lr<bfloat16x2>(double, const std::string&);

}  // namespace resnetcore

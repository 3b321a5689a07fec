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
}

template <class T>
double Training<T>::step(Rows<Compute<T>> x, std::int64_t rows, const CheckedTargets<T>& targets, double lr,
                         const std::string& operation, Memory x_in) {
    Batch<T> batch;
    batch.x = x;
    batch.rows = rows;
    batch.x_in = x_in;
    batch.target = targets.get();
    batch.targets_in = targets.values_in();
    batch.step = static_cast<std::uint32_t>(state.steps());
    batch.seed = settings.seed;
    PassOptions options;
    options.micro_batches = settings.accumulate;
    options.clip_norm = settings.clip_norm;
    state.begin_step(lr);
    const PassResult result = pass_.run(batch, options, &state);
    if (!result.finite) throw non_finite(result, operation, state.steps() + 1);
    last_gradient_norm = result.gradient_norm;
    last_weight = targets.weight();
    return result.loss;
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
    if (result.bad_layer == 0) text += "; the first layer with NaN or infinite values is layer 0, the input";
    if (result.bad_layer > 0)
        text += "; the first layer with NaN or infinite values is layer " + std::to_string(result.bad_layer);
    return NonFiniteError(text + ". Nothing was updated; try a smaller lr, clip_norm, or a norm");
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

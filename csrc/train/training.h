// One training: a network, a loss, an optimizer's state, and the passes that update them.
//
// Whoever calls `step` or looks at `state` holds the model. Between a `begin` and its `finish` nobody has to: whoever
// gets the model meanwhile finds it between two steps, all of them settled, and their results are kept for `finish`.
// Only who trains changes `steps` and `steps_begun`, which are read without the model: another's look at it settles
// steps, and counts none.
#pragma once

#include <array>
#include <atomic>
#include <exception>
#include <memory>

#include "base/error.h"
#include "train/any_model.h"
#include "train/backpropagation.h"
#include "train/optimizer_state.h"
#include "train/targets.h"

namespace resnetcore {

struct TrainingSettings {
    LossSettings loss;
    OptimizerSettings optimizer;
    std::uint64_t seed = 0;  // of the dropout masks
    double clip_norm = 0;    // 0: no clipping
    std::int64_t accumulate = 1;
};

// Throws ValueError, beginning with `operation`, for a number out of its range.
void check_settings(const TrainingSettings& settings, const std::string& operation);

template <class T>
class Training final : private Unsettled {
public:
    // The numbers are checked. Throws ValueError for what is out of range in the network's precision.
    Training(ModelPtr<T> trained, TrainingSettings numbers, const std::string& operation);

    ~Training();

    const ModelPtr<T> model;
    const TrainingSettings settings;
    OptimizerState<T> state;
    double last_gradient_norm = 0, last_weight = 0;

    // One update; the loss of before it. Throws NonFiniteError, with nothing changed, where it becomes NaN or infinite.
    double step(const BatchRows<T>& batch, const CheckedTargets<T>& targets, double lr, const std::string& operation);

    // The same in two halves, each of which holds the model itself: `finish` gives what the first `begin` that has not
    // been finished came to, and waits for it; at most two can be unfinished. Steps begun after one that failed are
    // dropped, and `begin` throws that one's error until `finish` has.
    void begin(const BatchRows<T>& batch, const CheckedTargets<T>& targets, double lr);
    double finish();
    // How many steps it pays to have begun while an earlier one is finished.
    int ahead() const { return model->device().is_host() ? 0 : Backpropagation<T>::most_in_flight - 1; }
    // Steps that `step` and `finish` have told of; and with them those that were begun besides.
    std::int64_t steps() const { return steps_; }
    std::int64_t steps_begun() const { return steps_begun_; }
    // With the model held, and nothing begun.
    void set_steps(std::int64_t steps);

private:
    struct Begun {
        bool settled = false;
        PassResult result;
        double weight = 0;
        std::exception_ptr error;
    };

    Batch<T> described(const BatchRows<T>& given, const CheckedTargets<T>& targets, double lr) const;
    PassOptions options() const;
    void settle() noexcept override;
    void settle(int place) noexcept;
    Begun& begun(int place) { return begun_[static_cast<std::size_t>((first_ + place) % most)]; }

    static constexpr int most = Backpropagation<T>::most_in_flight;
    Backpropagation<T> pass_;
    std::array<Begun, most> begun_;
    int first_ = 0, count_ = 0;  // of begun_
    std::atomic<std::int64_t> steps_{0}, steps_begun_{0};
};

// Throws ValueError unless `lr` is positive and finite in the network's precision.
template <class T>
void check_lr(double lr, const std::string& operation);

// The error of a pass whose loss or update is NaN or infinite; `step` is 0 where no step is counted.
NonFiniteError non_finite(const PassResult& result, const std::string& operation, std::int64_t step = 0);

extern template class Training<float>;
extern template class Training<double>;
extern template class Training<bfloat16>;
extern template class Training<bfloat16x2>;
extern template void check_lr<float>(double, const std::string&);
extern template void check_lr<double>(double, const std::string&);
extern template void check_lr<bfloat16>(double, const std::string&);
extern template void check_lr<bfloat16x2>(double, const std::string&);

}  // namespace resnetcore

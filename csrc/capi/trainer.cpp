// rc_trainer_*: settings as the training code takes them, and one step.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "capi/arguments.h"
#include "capi/devices.h"
#include "capi/guarded.h"
#include "capi/handles.h"
#include "capi/names.h"
#include "math/optimizer.h"

namespace resnetcore::capi {
namespace {

int optimizer_index(const rc_training& settings, const char* operation) {
    switch (settings.optimizer) {
        case RC_SGD:
            // Without momentum there is no array of velocities.
            return find_optimizer(settings.momentum == 0 ? "sgd" : "momentum");
        case RC_ADAM:
            return find_optimizer("adam");
        case RC_ADAMW:
            return find_optimizer("adamw");
        default:
            throw ValueError(std::string(operation) + ": there is no optimizer " + std::to_string(settings.optimizer));
    }
}

TrainingSettings checked_settings(const rc_training& given, std::int64_t outputs, const char* operation) {
    TrainingSettings settings;
    settings.loss.loss = loss_index(given.loss, operation);
    settings.loss.label_smoothing = given.label_smoothing;
    settings.loss.delta = given.delta;
    if (given.class_weight ? given.classes < 1 : given.classes != 0)
        throw ValueError(std::string(operation) +
                         ": class_weight must point to as many weights as classes says, or be NULL where that is 0, "
                         "got classes = " +
                         std::to_string(given.classes));
    if (given.class_weight) {
        check_class_count(settings.loss, given.classes, outputs, operation);  // before so many are read
        settings.loss.class_weight.assign(given.class_weight, given.class_weight + given.classes);
    }
    OptimizerSettings& optimizer = settings.optimizer;
    optimizer.optimizer = optimizer_index(given, operation);
    optimizer.momentum = given.momentum;
    optimizer.nesterov = given.nesterov != 0;
    optimizer.weight_decay = given.weight_decay;
    optimizer.beta1 = given.beta1;
    optimizer.beta2 = given.beta2;
    optimizer.eps = given.eps;
    optimizer.decay_weights_only = given.decay_weights_only != 0;
    settings.seed = given.seed;
    settings.clip_norm = given.clip_norm;
    settings.accumulate = given.accumulate;
    check_settings(settings, operation);
    if (optimizer.nesterov && optimizer.momentum == 0)
        throw ValueError(std::string(operation) + ": nesterov needs a momentum above 0");
    return settings;
}

template <class T>
double step(Training<T>& training, const rc_matrix* x, const rc_matrix* y, const rc_matrix* sample_weight, double lr,
            rc_stream stream) {
    using Element = Compute<T>;
    const char* operation = "rc_trainer_step";
    check_lr<T>(lr, operation);
    require(x, operation, "x");
    require(y, operation, "y");
    const Topology& topology = training.model->topology();
    const std::int64_t rows = x->rows, outputs = training.model->outputs();
    if (rows < 1)
        throw ShapeError(std::string(operation) + ": x must have at least 1 row, got " + std::to_string(rows));
    check_training_rows(topology, rows, training.settings.accumulate, operation);
    const bool labels = training.settings.loss.takes_labels() && y->dtype == RC_INT64;
    Device& device = training.model->device();
    Arguments arguments(operation, device, true);
    arguments.check(x, "x", rows, topology.inputs, dtype_of<Element>, Use::read);
    if (labels)
        arguments.check(y, "y", rows, 1, RC_INT64, Use::read);
    else
        arguments.check(y, "y", rows, outputs, dtype_of<Element>, Use::read);
    if (sample_weight) arguments.check(sample_weight, "sample_weight", rows, 1, dtype_of<Element>, Use::read);

    const CallOrder order(arguments, stream);
    // What is checked is copied to the CPU, and the copy is what is used.
    GivenTargets<T> given;
    std::vector<std::int64_t> label_column;
    std::vector<Element> weight_column;
    std::optional<HostRows<Element>> probabilities;
    if (labels) {
        label_column = column_of<std::int64_t>(*y, device);
        given.labels = label_column.data();
    } else if (training.settings.loss.takes_probabilities()) {
        probabilities.emplace(*y, device);
        given.values = probabilities->get();
    } else {
        given.values = rows_of<Element>(*y);
        given.in = memory_of(*y);
    }
    if (sample_weight) {
        weight_column = column_of<Element>(*sample_weight, device);
        given.sample_weight = weight_column.data();
    }
    const CheckedTargets<T> targets(given, training.settings.loss, rows, outputs, operation);
    BatchRows<T> batch;
    batch.x = rows_of<Element>(*x);
    batch.rows = rows;
    batch.x_in = memory_of(*x);
    const auto held = training.model->hold();
    return training.step(batch, targets, lr, operation);  // which waits, and nothing that comes after may fail
}

}  // namespace
}  // namespace resnetcore::capi

using namespace resnetcore;
using namespace resnetcore::capi;

rc_training rc_training_defaults(rc_loss loss, rc_optimizer optimizer) {
    rc_training settings{};
    settings.loss = loss;
    settings.optimizer = optimizer;
    settings.delta = 1;
    settings.weight_decay = optimizer == RC_ADAMW ? 1e-2 : 0;
    settings.beta1 = 0.9;
    settings.beta2 = 0.999;
    settings.eps = 1e-8;
    settings.accumulate = 1;
    return settings;
}

rc_status rc_trainer_create(rc_network* network, const rc_training* settings, rc_trainer** trainer) {
    return guarded([&] {
        const char* operation = "rc_trainer_create";
        require(network, operation, "network");
        require(settings, operation, "settings");
        require(trainer, operation, "trainer");
        auto result = std::visit(
            [&](const auto& model) {
                const TrainingSettings checked = checked_settings(*settings, model->outputs(), operation);
                using T = typename std::decay_t<decltype(*model)>::Scalar;
                const auto held = model->hold();  // its device is where the optimizer's arrays are made
                return std::make_unique<rc_trainer>(
                    rc_trainer{std::make_unique<Training<T>>(model, checked, operation)});
            },
            network->stored.network.model);
        *trainer = result.release();
    });
}

void rc_trainer_free(rc_trainer* trainer) { delete trainer; }

rc_status rc_trainer_step_on(rc_trainer* trainer, const rc_matrix* x, const rc_matrix* y,
                             const rc_matrix* sample_weight, double lr, double* loss, rc_stream stream) {
    return guarded([&] {
        require(trainer, "rc_trainer_step", "trainer");
        const double before = std::visit(
            [&](const auto& training) { return step(*training, x, y, sample_weight, lr, stream); }, trainer->training);
        if (loss) *loss = before;
    });
}

rc_status rc_trainer_step(rc_trainer* trainer, const rc_matrix* x, const rc_matrix* y, const rc_matrix* sample_weight,
                          double lr, double* loss) {
    return rc_trainer_step_on(trainer, x, y, sample_weight, lr, loss, nullptr);
}

int64_t rc_trainer_steps(const rc_trainer* trainer) {
    return guarded_value<int64_t>(-1, [&] {
        require(trainer, "rc_trainer_steps", "trainer");
        return std::visit([](const auto& training) { return training->steps(); }, trainer->training);
    });
}

// resnetcore._core.Trainer: one training step is one call, with the GIL released; state in and out for checkpoints.
#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings/array.h"
#include "bindings/batch_arguments.h"
#include "bindings/network_object.h"
#include "bindings/register.h"
#include "bindings/without_gil.h"
#include "train/training.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

struct TrainerObject {
    std::variant<std::shared_ptr<Training<float>>, std::shared_ptr<Training<double>>,
                 std::shared_ptr<Training<bfloat16>>, std::shared_ptr<Training<bfloat16x2>>>
        trainer;
    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return std::visit([&](const auto& pointer) -> decltype(auto) { return visit(*pointer); }, trainer);
    }
};

OptimizerSettings optimizer_settings(const py::dict& d) {
    OptimizerSettings s;
    const std::string name = d["name"].cast<std::string>();
    s.optimizer = find_optimizer(name);
    if (s.optimizer < 0) {
        std::string known;
        for (int i = 0; i < optimizer_count(); ++i) known += std::string(i ? ", " : "") + optimizer_name(i);
        throw ValueError("Trainer: unknown optimizer '" + name + "'; known are " + known);
    }
    auto number = [&](const char* key, double& to) {
        if (d.contains(key)) to = d[key].cast<double>();
    };
    number("momentum", s.momentum);
    number("weight_decay", s.weight_decay);
    number("beta1", s.beta1);
    number("beta2", s.beta2);
    number("eps", s.eps);
    if (d.contains("nesterov")) s.nesterov = d["nesterov"].cast<bool>();
    if (d.contains("decay")) {
        const std::string decay = d["decay"].cast<std::string>();
        if (decay != "all" && decay != "weights")
            throw ValueError("Trainer: decay must be \"all\" or \"weights\", got \"" + decay + "\"");
        s.decay_weights_only = decay == "weights";
    }
    return s;
}

TrainerObject make_trainer(const NetworkObject& network, const py::dict& loss, const py::dict& optimizer,
                           std::uint64_t seed, std::optional<double> clip_norm, std::int64_t accumulate) {
    if (clip_norm && *clip_norm == 0) throw ValueError("Trainer: clip_norm must be positive and finite, got 0");
    TrainingSettings settings;
    settings.loss = loss_settings(loss);
    settings.optimizer = optimizer_settings(optimizer);
    settings.seed = seed;
    settings.clip_norm = clip_norm.value_or(0);
    settings.accumulate = accumulate;
    check_settings(settings, "Trainer");
    return std::visit(
        [&](const auto& model) {
            using Trainer = Training<typename std::decay_t<decltype(*model)>::Scalar>;
            const auto held = model->hold();
            return TrainerObject{std::make_shared<Trainer>(model, settings, "Trainer")};
        },
        network.model);
}

// Calls take(batch, checked targets), with what they point to alive, on a batch as Python gives it: checked.
template <class T, class Take>
auto with_batch(Training<T>& trainer, py::handle x, py::handle y, double lr, py::handle sample_weight,
                LabelsThere labels, Take take) {
    check_lr<T>(lr, "step");
    const Model<T>& model = *trainer.model;
    const InputMatrix<Compute<T>> input =
        input_matrix<Compute<T>>(x, "step", "x", model.topology().inputs, model.device());
    check_training_rows(model.topology(), input.rows, trainer.settings.accumulate, "step");
    const Targets<T> targets(y, sample_weight, trainer.settings.loss, input.rows, model.outputs(), "step",
                             model.device(), labels);
    BatchRows<T> batch;
    batch.x = {input.data, input.stride};
    batch.rows = input.rows;
    batch.x_in = input.in;
    return take(batch, targets.checked());
}

template <class T>
bool takes(const Training<T>& trainer, py::handle x, py::handle y) {
    const Model<T>& model = *trainer.model;
    return are_plain<Compute<T>>(x, y, trainer.settings.loss, model.topology().inputs, model.outputs(), model.device());
}

template <class T>
double step(Training<T>& trainer, py::handle x, py::handle y, double lr, py::handle sample_weight) {
    return with_batch(trainer, x, y, lr, sample_weight, LabelsThere::are_looked_at_later,
                      [&](const BatchRows<T>& batch, const CheckedTargets<T>& targets) {
                          const WithoutGil release;
                          const auto held = trainer.model->hold();
                          return trainer.step(batch, targets, lr, "step");
                      });
}

template <class T>
void begin_step(Training<T>& trainer, py::handle x, py::handle y, double lr, py::handle sample_weight) {
    // What `finish` finds is told of when the targets may be gone.
    with_batch(trainer, x, y, lr, sample_weight, LabelsThere::are_copied,
               [&](const BatchRows<T>& batch, const CheckedTargets<T>& targets) {
                   const WithoutGil release;
                   trainer.begin(batch, targets, lr);
               });
}

// A matrix whose rows are chosen from, and its number of rows; `owner` keeps it alive.
template <class T>
std::int64_t rows_to_choose(const Model<T>& model, py::handle x, BatchRows<T>& batch, InputMatrix<Compute<T>>& owner) {
    const std::int64_t width = model.topology().inputs;
    if (py::isinstance<DeviceArray>(x)) {
        const DeviceArray& array = device_matrix(x, "step", "X", width, model.device());
        batch.x_in = Memory::device;
        batch.x_there = gathered_from(array);
        return array.shape[0];
    }
    owner = input_matrix<Compute<T>>(x, "step", "X", width);
    batch.x = {owner.data, owner.stride};
    return owner.rows;
}

// A GPU's X is read after the call returns: it is the caller's to keep until the step is finished.
template <class T>
void begin_rows(Training<T>& trainer, py::handle x, py::handle y, const Dense<std::int64_t>& chosen, double lr,
                py::handle sample_weight) {
    check_lr<T>(lr, "step");
    const Model<T>& model = *trainer.model;
    BatchRows<T> batch;
    InputMatrix<Compute<T>> owner;
    const std::int64_t most = rows_to_choose(model, x, batch, owner);
    if (chosen.ndim() != 1) throw ShapeError("step: rows must have 1 dimension, got " + std::to_string(chosen.ndim()));
    batch.rows = chosen.size();
    batch.chosen = chosen.data();
    check_training_rows(model.topology(), batch.rows, trainer.settings.accumulate, "step");
    for (std::int64_t i = 0; i < batch.rows; ++i)
        if (batch.chosen[i] < 0 || batch.chosen[i] >= most)
            throw ValueError("step: rows must be from 0 to " + std::to_string(most - 1) + ", got " +
                             std::to_string(batch.chosen[i]));
    const py::object batch_y = py::reinterpret_borrow<py::object>(y)[chosen];
    py::object batch_weight = py::none();
    if (!sample_weight.is_none()) batch_weight = py::reinterpret_borrow<py::object>(sample_weight)[chosen];
    const Targets<T> targets(batch_y, batch_weight, trainer.settings.loss, batch.rows, model.outputs(), "step",
                             model.device());
    const WithoutGil release;
    trainer.begin(batch, targets.checked(), lr);
}

template <class T>
double finish_step(Training<T>& trainer) {
    const WithoutGil release;
    return trainer.finish();
}

std::string state_name(const Parameter& p, int index) { return "optimizer." + p.name + "." + std::to_string(index); }

template <class T>
py::dict state(Training<T>& trainer) {
    Model<T>& model = *trainer.model;
    const auto& all = model.parameters().all;
    // Arrays are made before the lock is taken and filled while it is held: another thread may train.
    struct Wanted {
        int id, index;
        Compute<T>* values;
    };
    std::vector<Wanted> wanted;
    py::dict result;
    for (std::size_t id = 0; id < all.size(); ++id)
        for (int i = 0; all[id].trained && i < trainer.state.arrays(); ++i) {
            auto array = parameter_array<Compute<T>>(all[id]);
            wanted.push_back({static_cast<int>(id), i, array.mutable_data()});
            result[py::str(state_name(all[id], i))] = array;
        }
    py::array_t<std::int64_t> steps(1);
    std::int64_t* count = steps.mutable_data();
    result["optimizer.step"] = steps;
    {
        const WithoutGil release;
        const auto held = model.hold();
        for (const Wanted& w : wanted) model.store().unpack_like(w.id, trainer.state.array(w.id, w.index), w.values);
        *count = trainer.state.steps();
    }
    return result;
}

template <class T>
void set_state(Training<T>& trainer, const py::dict& given) {
    Model<T>& model = *trainer.model;
    const auto& all = model.parameters().all;
    std::vector<std::pair<Dense<Compute<T>>, Compute<T>*>> values;
    std::vector<int> ids;
    auto take = [&](const std::string& name) {
        if (!given.contains(name)) throw ValueError("set_state: '" + name + "' is missing");
        return given[py::str(name)];
    };
    for (std::size_t id = 0; id < all.size(); ++id)
        for (int i = 0; all[id].trained && i < trainer.state.arrays(); ++i) {
            const auto expected = parameter_array<Compute<T>>(all[id]);
            const auto value = dense<Compute<T>>(py::object(take(state_name(all[id], i))));
            if (value.ndim() != expected.ndim() ||
                !std::equal(value.shape(), value.shape() + value.ndim(), expected.shape()))
                throw ShapeError("set_state: '" + state_name(all[id], i) + "' has the wrong shape");
            values.push_back({value, trainer.state.array(static_cast<int>(id), i)});
            ids.push_back(static_cast<int>(id));
        }
    const auto steps = take("optimizer.step").template cast<py::array_t<std::int64_t>>();
    if (steps.size() != 1 || *steps.data() < 0)
        throw ValueError("set_state: 'optimizer.step' must be one count, not negative");
    if (given.size() != values.size() + 1) throw ValueError("set_state: there are arrays that no parameter has");
    const std::int64_t count = *steps.data();
    const WithoutGil release;
    const auto held = model.hold();
    for (std::size_t i = 0; i < values.size(); ++i)
        model.store().pack_like(ids[i], values[i].first.data(), values[i].second);
    model.device().synchronize();
    trainer.set_steps(count);
}

}  // namespace

void register_trainer(py::module_& m) {
    py::class_<TrainerObject>(m, "Trainer", "Trains a Network in place; see resnetcore.Trainer.")
        .def(py::init(&make_trainer), py::arg("network"), py::arg("loss"), py::arg("optimizer"), py::arg("seed") = 0,
             py::arg("clip_norm") = py::none(), py::arg("accumulate") = 1)
        .def(
            "takes",
            [](const TrainerObject& t, py::handle x, py::handle y) {
                return t.with([&](const auto& trainer) { return takes(trainer, x, y); });
            },
            py::arg("x"), py::arg("y"), "Whether `step` takes these two without a conversion or a further check.")
        .def(
            "step",
            [](const TrainerObject& t, py::handle x, py::handle y, double lr, py::handle sample_weight) {
                return t.with([&](auto& trainer) { return step(trainer, x, y, lr, sample_weight); });
            },
            py::arg("x"), py::arg("y"), py::arg("lr"), py::arg("sample_weight") = py::none(),
            "One update; the loss of before it.")
        .def(
            "begin_step",
            [](const TrainerObject& t, py::handle x, py::handle y, double lr, py::handle sample_weight) {
                t.with([&](auto& trainer) { begin_step(trainer, x, y, lr, sample_weight); });
            },
            py::arg("x"), py::arg("y"), py::arg("lr"), py::arg("sample_weight") = py::none(),
            "The same without waiting for it. An earlier step's error that was met with meanwhile is raised here, too.")
        .def(
            "begin_rows",
            [](const TrainerObject& t, py::handle x, py::handle y, const Dense<std::int64_t>& rows, double lr,
               py::handle sample_weight) {
                t.with([&](auto& trainer) { begin_rows(trainer, x, y, rows, lr, sample_weight); });
            },
            py::arg("x"), py::arg("y"), py::arg("rows"), py::arg("lr"), py::arg("sample_weight") = py::none(),
            "The same on the chosen rows of x and y.")
        .def(
            "finish_step",
            [](const TrainerObject& t) { return t.with([](auto& trainer) { return finish_step(trainer); }); },
            "Waits for the first step that was begun and not finished; its loss. After an error, none is begun.")
        .def_property_readonly(
            "ahead", [](const TrainerObject& t) { return t.with([](const auto& trainer) { return trainer.ahead(); }); },
            "How many steps it pays to have begun while an earlier one is finished.")
        .def_property_readonly(
            "steps_begun",
            [](const TrainerObject& t) { return t.with([](const auto& trainer) { return trainer.steps_begun(); }); })
        .def_property_readonly(
            "steps", [](const TrainerObject& t) { return t.with([](const auto& trainer) { return trainer.steps(); }); })
        .def_property_readonly("last_gradient_norm",
                               [](const TrainerObject& t) {
                                   return t.with([](const auto& trainer) { return trainer.last_gradient_norm; });
                               })
        .def_property_readonly(
            "last_weight",
            [](const TrainerObject& t) { return t.with([](const auto& trainer) { return trainer.last_weight; }); },
            "What the last step's mean was divided by: the sum of its rows' weights, or their number.")
        .def(
            "state", [](const TrainerObject& t) { return t.with([](auto& trainer) { return state(trainer); }); },
            "The optimizer's arrays and step count.")
        .def(
            "set_state",
            [](const TrainerObject& t, const py::dict& values) {
                t.with([&](auto& trainer) { set_state(trainer, values); });
            },
            py::arg("values"), "What state() gave, all or nothing.");
}

}  // namespace resnetcore

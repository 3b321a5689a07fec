// resnetcore._core: how a network's steps are done, in words, and what a tuning has found to be fastest.
#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings/device_array.h"
#include "bindings/network_object.h"
#include "bindings/register.h"
#include "runtime/tiles.h"
#include "train/strategy.h"
#include "train/training.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

std::string counted(std::int64_t count, const std::string& what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string indented(const std::string& lines) {
    std::string out = "    ";
    for (char c : lines) out += c == '\n' ? "\n    " : std::string(1, c);
    return out + "\n";
}

// A device that is not the host takes all rows at once.
template <class T>
std::string explain_tiles(const Model<T>& model, const Plan& plan, std::int64_t rows, int threads, int copies) {
    if (!model.device().is_host()) return "";
    const Tile tile =
        tile_of(plan, rows, threads, copies * model.weight_bytes(), sizeof(T), row_units(model.kernels()));
    return "tiles of " + counted(tile.rows, "row") + " (" + tile.reason + ")\n";
}

// Of a device, where a tuning chose; "": it does.
std::string name_of_path(const Device& device, int path) {
    if (path < 0) return "";
    for (const Device::Path& one : device.paths())
        if (device.path_number(one.name) == path) return one.name;
    return "";
}

template <class T>
std::string explain_plan(const Model<T>& model, bool training, std::int64_t batch) {
    if (batch < 1) throw ValueError("explain: batch must be at least 1, got " + std::to_string(batch));
    if (!training) {
        const Plan plan = model.inference_plan();
        const int threads = model.inference_threads(batch);
        const bool columns = model.device().is_host() &&
                             divides_columns(plan, batch, threads, model.weight_bytes(), row_units(model.kernels()));
        return "logits of " + counted(batch, "row") + ", on " + counted(threads, "thread") + "\n" +
               (columns ? "each thread some columns of every step (few rows wait for weights, which are read once)\n"
                        : explain_tiles(model, plan, batch, threads, 1)) +
               explain(plan, model.parameters());
    }
    const StepShape shape = step_shape(model, batch);
    const Choice choice = choose_strategy(shape);
    const bool by_tile = choice.strategy == Strategy::by_tile;
    const Plan plan = model.training_plan(by_tile);
    const bool columns =
        model.device().is_host() && divides_training_columns(plan, batch, choice.threads, 2 * model.weight_bytes(),
                                                             shape.element_size, model.kernels().product_speed);
    return "a step on " + counted(batch, "row") + ", on " + counted(choice.threads, "thread") + ": weight gradients " +
           (by_tile ? "by tile" : "by layer") +
           (choice.path < 0 ? "" : ", kernels of the path " + name_of_path(model.device(), choice.path)) + " (" +
           choice.reason + ")\n" + (shape.in_tiles ? indented(costs(shape)) : "") +
           (columns ? "each thread some columns of every product (few rows wait for weights, each of which one thread "
                      "reads)\n"
                    : explain_tiles(model, plan, batch, choice.threads, 2)) +
           explain(plan, model.parameters());
}

// As Python keeps it in a file.
py::dict shape_dict(const StepShape& s) {
    py::dict d;
    d["rows"] = s.rows, d["weights"] = s.weights, d["row_width"] = s.row_width;
    d["element_size"] = s.element_size, d["one_phase"] = s.one_phase, d["threads"] = s.threads;
    if (!s.device.empty()) d["device"] = s.device;
    return d;
}

StepShape shape_of(const py::dict& d) {
    StepShape s;
    s.rows = d["rows"].cast<std::int64_t>(), s.weights = d["weights"].cast<std::int64_t>();
    s.row_width = d["row_width"].cast<std::int64_t>(), s.element_size = d["element_size"].cast<std::int64_t>();
    s.one_phase = d["one_phase"].cast<bool>(), s.threads = d["threads"].cast<int>();
    if (d.contains("device")) s.device = d["device"].cast<std::string>();
    return s;
}

void remember_choice(const py::dict& d, const std::string& strategy, int threads) {
    const StepShape s = shape_of(d);
    if (!s.device.empty()) throw ValueError("remember_choice: " + s.device + " has one strategy");
    if (threads < 1 || threads > s.threads)
        throw ValueError("remember_choice: threads must be from 1 to " + std::to_string(s.threads) + ", got " +
                         std::to_string(threads));
    remember(s, find_strategy(strategy), threads);
}

void remember_path(const py::dict& d, const std::string& path) {
    const StepShape s = shape_of(d);
    const int number = path.empty() ? -1 : device_named(s.device).path_number(path);
    if (number < 0) throw ValueError("remember_path: " + s.device + " has no path \"" + path + "\"");
    remember(s, number);
}

// As it is given to one of the two; None where nothing is remembered.
py::object remembered_way(const py::dict& d) {
    const StepShape s = shape_of(d);
    const std::optional<Choice> found = remembered(s);
    if (!found) return py::none();
    if (!s.device.empty()) return py::make_tuple(name_of_path(device_named(s.device), found->path));
    return py::make_tuple(found->strategy == Strategy::by_tile ? "by_tile" : "by_layer", found->threads);
}

py::list device_paths(const std::string& name) {
    py::list paths;
    for (const Device::Path& path : device_named(name).paths())
        paths.append(py::make_tuple(path.name, path.has_passed));
    return paths;
}

}  // namespace

// Two of them are methods of Network, which is registered before.
void register_plans(py::module_& m) {
    py::class_<NetworkObject> network = m.attr("Network");
    network
        .def(
            "plan",
            [](const NetworkObject& n, bool training, std::int64_t batch) {
                return n.with([&](const auto& model) {
                    const std::string where = model.device().is_host() ? "" : ", on " + model.device().name();
                    return std::string("products of ") + n.operands() + where + "\n" +
                           explain_plan(model, training, batch);
                });
            },
            py::arg("training") = false, py::arg("batch") = 128, "What runs in which order, on which memory, as text.")
        .def(
            "step_shape",
            [](const NetworkObject& n, std::int64_t batch) {
                return n.with([&](const auto& model) { return shape_dict(step_shape(model, batch)); });
            },
            py::arg("batch"), "What the way to do a step on so many rows is chosen and remembered by.");
    m.def("remember_choice", &remember_choice, py::arg("shape"), py::arg("strategy"), py::arg("threads"),
          "Steps of this shape are done so from now on.");
    m.def("remember_path", &remember_path, py::arg("shape"), py::arg("path"),
          "Steps of this shape are done by these kernels of its device from now on.");
    m.def("remembered_way", &remembered_way, py::arg("shape"), "What was remembered of steps of this shape, or None.");
    m.def(
        "forget_way", [](const py::dict& shape) { forget(shape_of(shape)); }, py::arg("shape"),
        "Steps of this shape are done as the cost model, or the device, says again.");
    m.def("device_paths", &device_paths, py::arg("name"),
          "(name, whether its tests have passed on a GPU) of the kernels that a device's steps in bfloat16 may take.");
}

}  // namespace resnetcore

// Networks on a device that shares no memory with the host, against the same networks on the host: the kernels are the
// same, so are the bits.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "everything.h"
#include "math/loss.h"
#include "math/optimizer.h"
#include "separate_device.h"
#include "train/backpropagation.h"

using namespace resnetcore;

namespace {

constexpr std::int64_t most_rows = 150;

template <class T>
std::vector<std::vector<Compute<T>>> parameters(const Model<T>& model) {
    std::vector<std::vector<Compute<T>>> values;
    std::vector<std::pair<int, Compute<T>*>> wanted;
    for (const Parameter& p : model.parameters().all) {
        values.emplace_back(p.size());
        wanted.push_back({static_cast<int>(values.size()) - 1, values.back().data()});
    }
    model.read(wanted);
    return values;
}

template <class C>
bool same(const std::vector<C>& a, const std::vector<C>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(C)) == 0;
}
// Where norms clip, a unit of the host's is not one of the device's, and their squares are not added in one order.
template <class C>
bool close(const std::vector<std::vector<C>>& a, const std::vector<std::vector<C>>& b, bool clipped) {
    bool all = a.size() == b.size();
    for (std::size_t i = 0; all && i < a.size(); ++i) {
        all = clipped ? a[i].size() == b[i].size() : same(a[i], b[i]);
        for (std::size_t j = 0; all && clipped && j < a[i].size(); ++j)
            all = std::fabs(a[i][j] - b[i][j]) <= 1e-4 * (1 + std::fabs(a[i][j]));
    }
    return all;
}

struct Settings {
    std::string optimizer = "sgd";
    PassOptions pass;
    bool labels = true;
};

// One network and its training; everything a caller can ask of it.
template <class T>
struct Training {
    Model<T> model;
    const CurrentDevice current{model.device()};
    const Settings settings;
    OptimizerState<T> state;
    Backpropagation<T> pass;
    std::vector<Compute<T>> x, targets, sample_weight, class_weight;
    std::vector<std::int64_t> labels;

    Training(Device& device, const Settings& settings)
        : model(everything(), 1, device), settings(settings), state(model, optimizer(settings)), pass(model, false) {
        for (std::int64_t i = 0; i < most_rows * inputs; ++i)
            x.push_back(static_cast<Compute<T>>(static_cast<int>(i * 7 % 13) - 6) / 4);
        for (std::int64_t i = 0; i < most_rows * classes; ++i)
            targets.push_back(static_cast<Compute<T>>(static_cast<int>(i % 5)) / 4);
        for (std::int64_t i = 0; i < most_rows; ++i) {
            labels.push_back(i % classes);
            sample_weight.push_back(static_cast<Compute<T>>(1 + i % 3));
        }
        class_weight.assign(classes, Compute<T>(1.5));
    }
    static OptimizerSettings optimizer(const Settings& settings) {
        OptimizerSettings s;
        s.optimizer = find_optimizer(settings.optimizer);
        s.momentum = 0.5;
        s.weight_decay = 0.01;
        return s;
    }

    Batch<T> batch(std::int64_t rows, const double& normaliser, double lr = 0) const {
        Batch<T> batch;
        batch.lr = lr;
        batch.x = {x.data(), inputs};
        batch.rows = rows;
        batch.target.loss = find_loss(settings.labels ? "cross_entropy" : "mse");
        if (settings.labels) {
            batch.target.labels = labels.data();
            batch.target.class_weight = class_weight.data();
            batch.target.class_weights = classes;
        } else {
            batch.target.targets = {targets.data(), classes};
            batch.target.sample_weight = sample_weight.data();
        }
        batch.target.normaliser = &normaliser;
        batch.seed = 5;
        batch.step = static_cast<std::uint32_t>(state.steps());
        return batch;
    }
    PassResult step(std::int64_t rows, double lr) {
        // Another for each step, as weights of classes have it.
        const double normaliser = 1.0 / static_cast<double>(rows + state.steps());
        const auto held = model.hold();
        return pass.run(batch(rows, normaliser, lr), settings.pass, &state);
    }
    std::vector<Compute<T>> outputs() {
        std::vector<Compute<T>> out(most_rows * classes);
        model.predict({x.data(), inputs}, most_rows, {out.data(), classes});
        return out;
    }
    std::vector<std::vector<Compute<T>>> states() {
        std::vector<std::vector<Compute<T>>> all;
        const auto held = model.hold();
        for (std::size_t id = 0; id < model.parameters().all.size(); ++id)
            for (int i = 0; model.parameters().all[id].trained && i < state.arrays(); ++i) {
                all.emplace_back(model.parameters().all[id].size());
                model.store().unpack_like(static_cast<int>(id), state.array(static_cast<int>(id), i),
                                          all.back().data());
            }
        return all;
    }
};

template <class T>
struct Pair {
    SeparateDevice device;
    Training<T> here, there;
    std::string where;

    Pair(const char* precision, const Settings& settings, const std::string& what)
        : here(host_device(), settings),
          there(device, settings),
          where(std::string(precision) + ", " + settings.optimizer + ", " + what) {}

    void step(std::int64_t rows, double lr = 0.01) {
        const PassResult a = here.step(rows, lr), b = there.step(rows, lr);
        CHECK(a.finite == b.finite && a.bad_layer == b.bad_layer && a.overflow == b.overflow, "%s: %d %d, layer %d %d",
              where.c_str(), a.finite, b.finite, int(a.bad_layer), int(b.bad_layer));
        const double tolerance = here.settings.pass.clip_norm > 0 ? 1e-4 : 0;
        CHECK(!a.finite || std::fabs(a.loss - b.loss) <= tolerance * a.loss, "%s: loss %.9g, not %.9g", where.c_str(),
              b.loss, a.loss);
        CHECK(!a.finite || std::fabs(a.gradient_norm - b.gradient_norm) <= (1e-12 + tolerance) * a.gradient_norm,
              "%s: norm %.9g, not %.9g", where.c_str(), b.gradient_norm, a.gradient_norm);
    }
    void compare(const char* when) {
        const bool clipped = here.settings.pass.clip_norm > 0;
        CHECK(close(parameters(here.model), parameters(there.model), clipped), "%s: parameters differ %s",
              where.c_str(), when);
        CHECK(close(here.states(), there.states(), clipped), "%s: states differ %s", where.c_str(), when);
        CHECK(clipped || same(here.outputs(), there.outputs()), "%s: outputs differ %s", where.c_str(), when);
    }
};

template <class T>
void check_training(const char* precision) {
    for (const char* optimizer : {"sgd", "momentum", "adam", "adamw"})
        for (int kind = 0; kind < 3; ++kind) {
            Settings settings;
            settings.optimizer = optimizer;
            settings.labels = kind != 1;
            if (kind == 1) settings.pass.clip_norm = 0.1;
            if (kind == 2) settings.pass.micro_batches = 3;
            Pair<T> pair(precision, settings, kind == 0 ? "plain" : kind == 1 ? "clipped" : "accumulated");
            for (std::int64_t rows : {100, 100, 100, 100, 31, 31, 31, 100, 150, 150, 150}) pair.step(rows);
            pair.compare("after some steps");
            CHECK(pair.device.plays >= 5, "%s: only %d steps were played", pair.where.c_str(), pair.device.plays);
        }
}

// Nothing waits inside a step: the host asks once what became of it.
// Where nothing can be recorded, everything is done call by call.
void check_without_recordings() {
    Pair<float> pair("float32", {}, "without recordings");
    pair.device.records = false;
    for (std::int64_t rows : {100, 100, 100, 31, 31, 31}) pair.step(rows);
    pair.compare("after some steps");
    CHECK(pair.device.plays == 0, "%d were played", pair.device.plays);
}

template <class T>
void check_waits() {
    SeparateDevice device;
    Training<T> training(device, {});
    training.step(100, 0.01);
    const int before = device.waits, downloads = device.downloads;
    training.step(100, 0.01);
    CHECK(device.waits == before + 1 && device.downloads == downloads, "a step waits %d times, and for %d downloads",
          device.waits - before, device.downloads - downloads);
}

template <class T>
void check_bad_steps(const char* precision) {
    for (int kind = 0; kind < 3; ++kind) {
        Settings settings;
        settings.optimizer = "adam";
        if (kind == 1) settings.pass.clip_norm = 0.1;
        if (kind == 2) settings.pass.micro_batches = 2;
        Pair<T> pair(precision, settings, "a bad step");
        for (int i = 0; i < 3; ++i) pair.step(100);
        const auto before = parameters(pair.there.model);
        const auto states = pair.there.states();
        for (Training<T>* one : {&pair.here, &pair.there})
            one->x[90 * inputs] = std::numeric_limits<Compute<T>>::quiet_NaN();
        pair.step(100);
        CHECK(parameters(pair.there.model) == before && pair.there.states() == states && pair.there.state.steps() == 3,
              "%s: a NaN changed something", pair.where.c_str());
        for (Training<T>* one : {&pair.here, &pair.there}) one->x[90 * inputs] = 1;
        pair.step(100);
        pair.compare("after a NaN");
    }
    // The update, not the loss, is what overflows.
    Settings settings;
    settings.labels = false;
    Pair<T> pair(precision, settings, "an update that overflows");
    for (int i = 0; i < 3; ++i) pair.step(100);
    const auto before = parameters(pair.there.model);
    const double largest = std::numeric_limits<Compute<T>>::max();
    const PassResult result = pair.there.step(100, largest);
    CHECK(!result.finite && !result.overflow.empty(), "%s: no overflow", pair.where.c_str());
    CHECK(parameters(pair.there.model) == before && pair.there.state.steps() == 3, "%s is not undone",
          pair.where.c_str());
    pair.here.step(100, largest);
    pair.compare("after it");
    // One that might overflow, and does not.
    pair.step(100, 1e15);
    pair.compare("after a careful step");
}

// Passes that are begun before the one before them is finished, `most_in_flight` at a time, on other batches and at
// other rates: what they come to, whichever of them is bad, is what they come to one after another.
struct Planned {
    std::int64_t first, rows;
    double lr;
    bool is_bad = false;
    float scale = 1;  // of its inputs
};

// What the passes came to, up to the first that failed.
template <class T>
std::vector<PassResult> run_planned(Training<T>& training, const std::vector<Planned>& plan, int most) {
    std::vector<PassResult> results;
    const auto held = training.model.hold();
    std::vector<Compute<T>> x;
    for (std::size_t next = 0; next < plan.size() || training.pass.in_flight() > 0;) {
        if (next < plan.size() && training.pass.in_flight() < most) {
            const Planned& one = plan[next++];
            const double normaliser = 1.0 / static_cast<double>(one.rows + one.first);
            const std::vector<std::int64_t> chosen = [&] {
                std::vector<std::int64_t> rows;
                for (std::int64_t i = 0; i < one.rows; ++i) rows.push_back((one.first + 7 * i) % most_rows);
                return rows;
            }();
            x = training.x;
            for (Compute<T>& value : x) value *= one.scale;
            if (one.is_bad) x[chosen[3] * inputs] = std::numeric_limits<Compute<T>>::quiet_NaN();
            Batch<T> batch = training.batch(one.rows, normaliser, one.lr);
            batch.x.data = x.data();
            batch.chosen = chosen.data();
            batch.step = static_cast<std::uint32_t>(training.state.steps() + training.pass.in_flight());
            training.pass.begin(batch, training.settings.pass, &training.state);
            std::fill(x.begin(), x.end(), Compute<T>(1e30f));  // the caller's again
            continue;
        }
        results.push_back(training.pass.finish());
        if (!results.back().finite) break;
    }
    CHECK(training.pass.in_flight() == 0, "%d passes are still in flight", training.pass.in_flight());
    return results;
}

template <class T>
void check_in_flight(const char* precision) {
    const double largest = std::numeric_limits<Compute<T>>::max();
    const std::vector<Planned> good = {{0, 100, 0.01}, {9, 100, 0.02}, {3, 31, 0.01},  {5, 100, 0.03}, {1, 100, 0.01},
                                       {8, 31, 0.02},  {2, 100, 0.02}, {4, 150, 0.01}, {6, 100, 0.01}, {7, 100, 0.01}};
    for (int kind = 0; kind < 6; ++kind) {
        Settings settings;
        settings.labels = kind != 3;
        settings.optimizer = kind == 1 ? "adam" : kind == 2 ? "sgd" : "momentum";
        if (kind == 1) settings.pass.micro_batches = 2;
        std::vector<Planned> plan = good;
        // Large enough that they might overflow, which they do not.
        if (kind == 2)
            for (const std::size_t i : {4, 5, 7}) plan[i].lr = 1e-18, plan[i].scale = 1e18f;
        if (kind == 3) plan[6].lr = largest;
        if (kind == 4) plan[6].is_bad = true;
        if (kind == 5) plan[6].is_bad = plan[7].is_bad = true;
        Pair<T> pair(precision, settings, "in flight, kind " + std::to_string(kind));
        const auto here = run_planned(pair.here, plan, 1);
        const auto there = run_planned(pair.there, plan, Backpropagation<T>::most_in_flight);
        const std::size_t expected = kind < 3 ? plan.size() : 7;
        CHECK(here.size() == expected && there.size() == expected, "%s: %zu and %zu", pair.where.c_str(), here.size(),
              there.size());
        for (std::size_t i = 0; i < std::min(here.size(), there.size()); ++i)
            CHECK((here[i].loss == there[i].loss || !here[i].finite) && here[i].finite == there[i].finite &&
                      here[i].bad_layer == there[i].bad_layer && here[i].overflow == there[i].overflow,
                  "%s: pass %zu: %.9g, not %.9g", pair.where.c_str(), i, there[i].loss, here[i].loss);
        CHECK(pair.here.state.steps() == pair.there.state.steps(), "%s: %d steps", pair.where.c_str(),
              int(pair.there.state.steps()));
        pair.compare("after passes in flight");
        run_planned(pair.here, good, 1), run_planned(pair.there, good, Backpropagation<T>::most_in_flight);
        pair.compare("after more of them");
    }
}

template <class T>
void check_the_rest(const char* precision) {
    Settings settings;
    settings.pass.keep_gradients = true;
    Pair<T> pair(precision, settings, "gradients");
    std::vector<Compute<T>> d_x[2];
    std::vector<std::vector<Compute<T>>> gradients[2];
    Training<T>* const both[] = {&pair.here, &pair.there};
    for (int i = 0; i < 2; ++i) {
        Training<T>& one = *both[i];
        const auto held = one.model.hold();
        Backpropagation<T> pass(one.model, true);
        const double normaliser = 0.01;
        Batch<T> batch = one.batch(100, normaliser);
        d_x[i].resize(100 * inputs);
        batch.d_x = {d_x[i].data(), inputs};
        pass.run(batch, settings.pass, nullptr);
        for (std::size_t id = 0; id < one.model.parameters().all.size(); ++id) {
            const Parameter& p = one.model.parameters().all[id];
            if (!p.trained) continue;
            gradients[i].emplace_back(p.size());
            one.model.store().unpack_like(static_cast<int>(id), pass.gradient(static_cast<int>(id)),
                                          gradients[i].back().data());
        }
    }
    CHECK(d_x[0] == d_x[1] && gradients[0] == gradients[1], "%s differ", pair.where.c_str());
    for (bool training : {false, true}) {
        const auto here = pair.here.model.activations({pair.here.x.data(), inputs}, 50, training);
        const auto there = pair.there.model.activations({pair.there.x.data(), inputs}, 50, training);
        CHECK(here.size() == there.size() && !here.empty(), "%s: activations", pair.where.c_str());
        for (std::size_t i = 0; i < here.size(); ++i)
            CHECK(here[i].values == there[i].values, "%s: activation %s", pair.where.c_str(), here[i].name.c_str());
    }
    const double normaliser = 0.01;
    std::vector<Compute<T>> out(100 * classes);
    const LossTarget<T> target = pair.here.batch(100, normaliser).target;
    CHECK(pair.here.model.loss({pair.here.x.data(), inputs}, 100, target, out.data()) ==
              pair.there.model.loss({pair.there.x.data(), inputs}, 100, target, out.data()),
          "%s: loss", pair.where.c_str());
    // Rows that are apart; a copy on the same device and on the other one.
    std::vector<Compute<T>> apart(50 * classes), dense(50 * classes);
    pair.here.model.predict({pair.here.x.data() + 1, inputs + 2}, 50, {dense.data(), classes});
    pair.there.model.predict({pair.there.x.data() + 1, inputs + 2}, 50, {apart.data(), classes});
    CHECK(apart == dense, "%s: rows apart", pair.where.c_str());
    const Model<T> same(pair.there.model, pair.device), back(pair.there.model, host_device());
    CHECK(parameters(same) == parameters(pair.here.model) && parameters(back) == parameters(pair.here.model),
          "%s: copies", pair.where.c_str());
}

// A batch that is on the device already: read where it lies, or its chosen rows put side by side.
template <class T>
void check_what_is_there(const char* precision) {
    using C = Compute<T>;
    constexpr std::int64_t rows = 100;
    Settings settings;
    settings.labels = false;
    Pair<T> pair(precision, settings, "what is there");
    auto copied = [&](const std::vector<C>& values) {
        AlignedArray<C> array(pair.device, static_cast<std::int64_t>(values.size()));
        pair.device.upload(array.data(), values.data(), array.bytes());
        return array;
    };
    const AlignedArray<C> x = copied(pair.there.x), targets = copied(pair.there.targets);
    std::vector<std::int64_t> chosen(rows);
    for (std::int64_t i = 0; i < rows; ++i) chosen[static_cast<std::size_t>(i)] = (i * 37) % most_rows;
    auto step = [&](Training<T>& one, bool in_place, bool choose) {
        const double normaliser = 1.0 / rows;
        const auto held = one.model.hold();
        Batch<T> batch = one.batch(rows, normaliser);
        batch.lr = 0.01;
        if (choose) batch.chosen = chosen.data();
        if (in_place) {
            batch.x = {x.data(), inputs};
            batch.target.targets = {targets.data(), classes};
            batch.x_in = batch.targets_in = Memory::device;
            batch.x_there.from = x.data();
            batch.x_there.row_stride = inputs;
            batch.x_there.column_stride = 1;
        }
        return one.pass.run(batch, settings.pass, &one.state).loss;
    };
    for (const bool choose : {false, true, false, true, false, true}) {
        CHECK(step(pair.here, false, choose) == step(pair.there, true, choose), "%s: loss", pair.where.c_str());
        pair.compare(choose ? "of chosen rows" : "in place");
    }
}

// An error of the device is raised; what it left undone is done anew, and what it left half done is undone.
void check_failures() {
    Settings settings;
    settings.labels = false;
    Pair<float> pair("float32", settings, "a failure");
    auto raises = [](auto call) {
        try {
            call();
        } catch (const DeviceError&) {
            return true;
        }
        return false;
    };
    pair.step(100);
    pair.device.failing_wait = 1;
    CHECK(raises([&] { pair.there.outputs(); }), "a prediction that failed");
    pair.compare("after a prediction that failed");
    // The first wait is for the loss, the second for what the update on trial became.
    pair.device.failing_wait = 2;
    pair.device.loses_work = false;
    CHECK(raises([&] { pair.there.step(100, 1e15); }), "a careful step that failed");
    pair.compare("after a careful step that failed");
    pair.step(100);
    pair.compare("after a step after it");
    // What is in flight behind one that fails is dropped with it. Memory for it is there, or it would be waited for.
    const std::vector<Planned> two = {{0, 100, 0.01}, {1, 100, 0.01}};
    run_planned(pair.here, two, 1), run_planned(pair.there, two, Backpropagation<float>::most_in_flight);
    pair.device.loses_work = true;
    const double normaliser = 0.01;
    {
        const auto held = pair.there.model.hold();
        for (int i = 0; i < 2; ++i)
            pair.there.pass.begin(pair.there.batch(100, normaliser, 0.01), settings.pass, &pair.there.state);
        pair.device.failing_wait = 1;
        CHECK(raises([&] { pair.there.pass.finish(); }), "a step in flight that failed");
        CHECK(pair.there.pass.in_flight() == 0, "%d are in flight", pair.there.pass.in_flight());
    }
    pair.step(100);
    pair.compare("after a failure in flight");
}

void check_refusals() {
    SeparateDevice few(2);
    Topology topology = everything();
    std::string message;
    try {
        topology.layers[3].skips = {
            {2, SkipKind::learned, 0, 0, {}}, {3, SkipKind::learned, 0, 0, {}}, {4, SkipKind::learned, 0, 0, {}}};
        const Model<float> refused(topology, 0, few);
    } catch (const DeviceError& error) {
        message = error.what();
    }
    CHECK(message.find("separate:0\" take at most 2") != std::string::npos, "too many terms: '%s'", message.c_str());
    // No memory: nothing has changed, and the network goes on.
    SeparateDevice device;
    Training<float> training(device, {});
    training.step(31, 0.01);
    const auto before = parameters(training.model);
    device.limit = 1000;
    bool refused = false;
    try {
        training.step(most_rows, 0.01);
    } catch (const std::bad_alloc&) {
        refused = true;
    }
    device.limit = SIZE_MAX;
    CHECK(refused && parameters(training.model) == before, "a step without memory");
    CHECK(training.step(most_rows, 0.01).finite, "the step after it");
}

}  // namespace

int main() {
    set_num_threads(2);
    check_training<float>("float32");
    check_training<double>("float64");
    check_training<bfloat16>("bfloat16");
    check_without_recordings();
    check_waits<float>();
    check_bad_steps<float>("float32");
    check_bad_steps<bfloat16>("bfloat16");
    check_in_flight<float>("float32");
    check_in_flight<bfloat16>("bfloat16");
    check_the_rest<float>("float32");
    check_the_rest<double>("float64");
    check_the_rest<bfloat16>("bfloat16");
    check_what_is_there<float>("float32");
    check_what_is_there<double>("float64");
    check_what_is_there<bfloat16>("bfloat16");
    check_failures();
    check_refusals();
    return summary("devices");
}

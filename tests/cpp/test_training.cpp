// Steps of a training that were begun and not finished: what whoever looks meanwhile may count, and what becomes of
// those that the device does not take.
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "everything.h"
#include "math/loss.h"
#include "math/optimizer.h"
#include "separate_device.h"
#include "train/training.h"

using namespace resnetcore;

namespace {

constexpr std::int64_t rows = 60;

struct Step {
    double lr = 0.01;
    float scale = 1;  // of the inputs
};
// One that is done again, on trial: it might overflow, and does not.
constexpr Step careful = {1e-18, 1e18f};

struct Problem {
    std::shared_ptr<Model<float>> model;
    std::unique_ptr<Training<float>> training;
    std::vector<std::int64_t> labels;

    explicit Problem(Device& device) : model(std::make_shared<Model<float>>(everything(), 1, device)) {
        TrainingSettings settings;
        settings.loss.loss = find_loss("cross_entropy");
        settings.optimizer.optimizer = find_optimizer("sgd");
        const auto held = model->hold();
        training = std::make_unique<Training<float>>(model, settings, "test");
        for (std::int64_t i = 0; i < rows; ++i) labels.push_back(i % classes);
    }
    static std::vector<float> inputs_of(const Step& step) {
        std::vector<float> x;
        for (std::int64_t i = 0; i < rows * inputs; ++i)
            x.push_back(step.scale * static_cast<float>(static_cast<int>(i * 7 % 13) - 6) / 4);
        return x;
    }
    void begin(const Step& step) {
        const std::vector<float> x = inputs_of(step);
        BatchRows<float> batch;
        batch.x = {x.data(), inputs};
        begin(batch, step);
    }
    void begin(BatchRows<float>& batch, const Step& step) {
        GivenTargets<float> given;
        given.labels = labels.data();
        const CheckedTargets<float> targets(given, training->settings.loss, rows, classes, "test");
        batch.rows = rows;
        training->begin(batch, targets, step.lr);
    }
    std::vector<std::vector<float>> parameters() const {
        std::vector<std::vector<float>> values;
        std::vector<std::pair<int, float*>> wanted;
        for (const Parameter& p : model->parameters().all) {
            values.emplace_back(p.size());
            wanted.push_back({static_cast<int>(values.size()) - 1, values.back().data()});
        }
        model->read(wanted);
        return values;
    }
};

template <class Call>
std::string error_of(Call call) {
    try {
        call();
    } catch (const DeviceError& error) {
        return error.what();
    }
    return "";
}

// Another caller's look at the model settles the steps; it counts none, at no moment.
void who_looks_counts_no_step() {
    SeparateDevice device;
    Problem problem(device);
    const Training<float>& training = *problem.training;
    problem.begin(careful), problem.begin(careful);
    int seen = 0;
    device.at_fetch = [&] {
        ++seen;
        CHECK(training.steps() == 0 && training.steps_begun() == 2, "%d and %d while they are settled",
              int(training.steps()), int(training.steps_begun()));
    };
    problem.parameters();
    CHECK(seen >= 3, "%d fetches: no step was done again", seen);  // each, and the second once more after the first
    device.at_fetch = nullptr;
    CHECK(training.steps() == 0 && training.steps_begun() == 2, "%d and %d", int(training.steps()),
          int(training.steps_begun()));
    problem.training->finish();
    CHECK(training.steps() == 1 && training.steps_begun() == 2, "%d and %d", int(training.steps()),
          int(training.steps_begun()));
    problem.training->finish();
    CHECK(training.steps() == 2 && training.steps_begun() == 2, "%d and %d", int(training.steps()),
          int(training.steps_begun()));
}

// The step before it is made, and told of; the one that could not be asked for again is as if it had never been begun.
void a_step_is_not_blamed_for_the_next_one() {
    SeparateDevice device;
    Problem here(host_device()), there(device);
    here.begin(careful);
    const double loss = here.training->finish();
    there.begin(careful), there.begin({});
    // After the careful step's end, when what overflowed has been looked for.
    device.at_fetch = [&] { device.failing_clear = 2; };
    std::string error = error_of(
        [&] { CHECK(there.training->finish() == loss, "the first step's loss is not what it was on the host"); });
    CHECK(error.empty(), "the first step raised '%s'", error.c_str());
    device.at_fetch = nullptr;
    CHECK(there.training->steps() == 1 && there.training->steps_begun() == 2, "%d and %d", int(there.training->steps()),
          int(there.training->steps_begun()));
    CHECK(error_of([&] { there.begin({}); }).find("refuse to clear") != std::string::npos, "a third step was begun");
    CHECK(error_of([&] { there.training->finish(); }).find("refuse to clear") != std::string::npos,
          "the second step did not fail");
    CHECK(there.training->steps() == 1 && there.training->steps_begun() == 1, "%d and %d", int(there.training->steps()),
          int(there.training->steps_begun()));
    CHECK(there.parameters() == here.parameters(), "the second step changed something");
    for (Problem* one : {&here, &there}) one->begin({}), one->training->finish();
    CHECK(there.parameters() == here.parameters(), "they differ after another step");
}

// What it was to read and write is its owner's again.
void nothing_is_under_way_of_a_step_that_could_not_begin() {
    SeparateDevice device;
    Problem problem(device);
    const CurrentDevice current(device);
    const std::vector<float> values = Problem::inputs_of({});
    AlignedArray<float> x(device, rows * inputs);
    device.upload(x.data(), values.data(), x.bytes());
    device.synchronize();
    std::vector<std::int64_t> chosen(rows, 1);
    BatchRows<float> batch;
    batch.x_in = Memory::device;
    batch.chosen = chosen.data();
    batch.x_there.from = x.data();
    batch.x_there.row_stride = inputs;
    batch.x_there.column_stride = 1;
    device.failing_clear = 1;
    CHECK(!error_of([&] { problem.begin(batch, {}); }).empty(), "it began");
    CHECK(device.is_idle(), "the rows are still to be read");
    problem.begin(batch, {});
    problem.training->finish();
    CHECK(problem.training->steps() == 1, "%d steps", int(problem.training->steps()));
}

// It might overflow, and so was not permitted, nor was anything after it; and then it could not be told of.
void a_step_that_failed_half_way_stops_none_after_it() {
    SeparateDevice device;
    Problem here(host_device()), there(device);
    const auto fail_half_way = [&] {
        device.at_fetch = [] { throw DeviceError("told to fail"); };
        CHECK(error_of([&] { there.begin(careful); }) == "told to fail", "it began");
        device.at_fetch = nullptr;
    };
    fail_half_way();
    for (Problem* one : {&here, &there}) one->begin({}), one->training->finish();
    CHECK(there.parameters() == here.parameters(), "the step after it was not made");
    there.begin({});
    fail_half_way();
    there.training->finish();
    here.begin({}), here.training->finish();
    for (Problem* one : {&here, &there}) one->begin({}), one->training->finish();
    CHECK(there.training->steps() == 3 && there.parameters() == here.parameters(),
          "the step after one that failed behind another was not made");
}

}  // namespace

int main() {
    set_num_threads(1);
    who_looks_counts_no_step();
    a_step_is_not_blamed_for_the_next_one();
    nothing_is_under_way_of_a_step_that_could_not_begin();
    a_step_that_failed_half_way_stops_none_after_it();
    return summary("training");
}

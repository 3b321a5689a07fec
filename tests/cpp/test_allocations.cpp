// A training step asks for no memory once there was one like it: every call that could is counted (operator new here,
// the C functions by the linker's --wrap).
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "check.h"
#include "everything.h"
#include "math/loss.h"
#include "math/optimizer.h"
#include "train/backpropagation.h"

namespace {
std::atomic<int> requests{0};
}

extern "C" {
void* __real_malloc(std::size_t size);
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);
void* __wrap_malloc(std::size_t size) {
    ++requests;
    return __real_malloc(size);
}
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
    ++requests;
    return __real_aligned_alloc(alignment, size);
}
}

void* operator new(std::size_t size) {
    if (void* memory = __wrap_malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace resnetcore;

namespace {

template <class T>
struct Training {
    Model<T> model{everything(), 1};
    OptimizerState<T> state;
    Backpropagation<T> pass{model, false};
    std::vector<Compute<T>> x;
    std::vector<std::int64_t> labels;

    Training(const OptimizerSettings& settings, std::int64_t rows) : state(model, settings), x(rows * inputs) {
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<Compute<T>>(static_cast<int>(i * 7 % 13) - 6) / 4;
        for (std::int64_t i = 0; i < rows; ++i) labels.push_back(i % classes);
    }

    int step(std::int64_t rows, const PassOptions& options) {
        Batch<T> batch;
        batch.x = {x.data(), inputs};
        batch.rows = rows;
        batch.target.loss = find_loss("cross_entropy");
        batch.target.labels = labels.data();
        const double normaliser = 1.0 / static_cast<double>(rows);
        batch.target.normaliser = &normaliser;
        batch.lr = 0.01;
        const int before = requests.load();
        const PassResult result = pass.run(batch, options, &state);
        const int made = requests.load() - before;
        CHECK(result.finite && result.loss > 0, "the loss is %g", result.loss);
        return made;
    }
};

template <class T>
void check_steps(const char* precision) {
    constexpr std::int64_t rows = 300;
    for (const char* strategy : {"by_layer", "by_tile"}) {
        set_strategy(strategy);
        for (int optimizer : {find_optimizer("sgd"), find_optimizer("adamw")}) {
            OptimizerSettings settings;
            settings.optimizer = optimizer;
            for (int kind = 0; kind < 3; ++kind) {
                PassOptions options;
                if (kind == 1) options.clip_norm = 1;
                if (kind == 2) options.micro_batches = 2;
                Training<T> training(settings, rows);
                training.step(rows, options);
                const std::string where =
                    std::string(precision) + ", " + strategy + ", optimizer " + std::to_string(optimizer);
                CHECK(training.step(rows, options) == 0, "%s: a step like the one before", where.c_str());
                CHECK(training.step(rows - 11, options) == 0, "%s: a smaller batch", where.c_str());
                CHECK(training.step(rows, options) == 0, "%s: the larger one again", where.c_str());
            }
        }
    }
}

}  // namespace

int main() {
    host_device();
    const int before = requests.load();
    const std::vector<int> counted(1000);
    const AlignedArray<float> aligned(1000);
    CHECK(requests.load() == before + 2, "requests are not counted: %d", requests.load() - before);
    set_num_threads(2);
    check_steps<float>("float32");
    check_steps<double>("float64");
    check_steps<bfloat16>("bfloat16");
    return summary("allocations");
}

// The magnitudes that decide whether an update is safe, on the emulation of a GPU: a step whose kernels keep them has
// those of one that measures every array by itself, and measures no more than what no kernel that keeps them makes. And
// the loss, whose rows are added where it is taken.
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "everything.h"
#include "math/loss.h"
#include "runtime/cuda_device.h"
#include "train/backpropagation.h"

using namespace resnetcore;

namespace {

struct Magnitudes {
    double a = 0, delta = 0, loss = 0;
    int measured = 0;  // arrays
};
Magnitudes seen;

// The emulated GPU, which counts, and may leave all magnitudes to `largest`.
template <class T>
class CountingDevice : public CudaDevice {
public:
    explicit CountingDevice(bool kernels_keep) : CudaDevice(*resnetcore_cuda_module(), 0) {
        table_ = given() = Device::kernels<T>();
        table_.keeps_largest = kernels_keep;
        table_.largest = [](const LargestArgs<T>& args) {
            ++seen.measured;
            given().largest(args);
        };
        table_.conclude = [](const ConcludeArgs<T>& args) {
            resnetcore_cuda_module()->download(&seen.a, args.largest_a, sizeof seen.a);
            resnetcore_cuda_module()->download(&seen.delta, args.largest_delta, sizeof seen.delta);
            given().conclude(args);
            Outcome outcome;
            resnetcore_cuda_module()->download(&outcome, args.out, sizeof outcome);
            seen.loss = outcome.loss;
        };
        place() = &table_;
    }

private:
    static KernelTable<T>& given() {
        static KernelTable<T> table;
        return table;
    }
    const KernelTable<T>*& place() {
        if constexpr (std::is_same<T, float>::value) return tables_.f32;
        if constexpr (std::is_same<T, double>::value) return tables_.f64;
        if constexpr (std::is_same<T, bfloat16>::value) return tables_.bf16;
        if constexpr (std::is_same<T, bfloat16x2>::value) return tables_.bf16x2;
    }
    KernelTable<T> table_;
};

// Of a network's first step.
template <class T>
Magnitudes step(const Topology& topology, bool kernels_keep, double first_input = 1, std::int64_t micro_batches = 1) {
    constexpr std::int64_t rows = 70;
    CountingDevice<T> device(kernels_keep);
    Model<T> model(topology, 1, device);
    const CurrentDevice current(device);
    OptimizerState<T> state(model, {});
    Backpropagation<T> pass(model, false);
    std::vector<Compute<T>> x, targets;
    for (std::int64_t i = 0; i < rows * inputs; ++i) x.push_back(static_cast<Compute<T>>(int(i * 7 % 13) - 6) / 4);
    for (std::int64_t i = 0; i < rows * classes; ++i) targets.push_back(static_cast<Compute<T>>(int(i % 5)) / 4);
    x[0] = static_cast<Compute<T>>(first_input);
    const double normaliser = 1.0 / rows;
    Batch<T> batch;
    batch.lr = 0.01;
    batch.x = {x.data(), inputs};
    batch.rows = rows;
    batch.target.loss = find_loss("mse");
    batch.target.targets = {targets.data(), classes};
    batch.target.normaliser = &normaliser;
    seen = {};
    const auto held = model.hold();
    PassOptions options;
    options.micro_batches = micro_batches;
    pass.run(batch, options, &state);
    return seen;
}

bool same(double a, double b) { return a == b || (a != a && b != b); }

template <class T>
void check(const char* type, const char* path) {
    setenv("RESNETCORE_CUDA_PATH", path, 1);
    Topology plain;
    plain.inputs = inputs;
    plain.layers.assign(6, everything().layers[0]);
    plain.layers[3].skips = everything().layers[2].skips;
    plain.layers.push_back(everything().layers.back());
    for (double input : {1.0, 1e9, double(NAN)})
        for (const Topology& topology : {plain, everything()}) {
            const Magnitudes kept = step<T>(topology, true, input), found = step<T>(topology, false, input);
            CHECK(same(kept.a, found.a) && same(kept.delta, found.delta) && !(kept.a == 0) && !(kept.delta == 0),
                  "%s, %s, %g: %g and %g, not %g and %g", type, path, input, kept.a, kept.delta, found.a, found.delta);
            CHECK(kept.measured <= found.measured, "%d arrays, not %d", kept.measured, found.measured);
        }
    // The input, where nothing converts it.
    Topology normed = plain;
    for (int layer : {1, 3, 4}) normed.layers[layer].batch_norm = true;
    for (const Topology& topology : {plain, normed}) {
        const int measured = step<T>(topology, true).measured;
        CHECK(measured == (computes_itself<T> ? 1 : 0), "%s, %s: %d arrays were measured", type, path, measured);
    }
    const double whole = step<T>(plain, true).loss, in_parts = step<T>(plain, true, 1, 3).loss;
    CHECK(whole > 0 && std::fabs(in_parts - whole) <= 1e-14 * whole, "%s, %s: a loss of %.17g, not %.17g", type, path,
          in_parts, whole);
}

}  // namespace

int main() {
    check<float>("float32", "simple");
    check<double>("float64", "simple");
    check<bfloat16x2>("bfloat16x2", "simple");
    for (const char* path : {"simple", "ampere", "hopper", "hopper_narrow", "hopper_fused"})
        check<bfloat16>("bfloat16", path);
    return summary("cuda_magnitudes");
}

// A network on a device: its topology, its arrays, and what inference needs. What callers give and get is the host's,
// unless they say that it is in memory of the device.
// One caller at a time: functions lock, but for the few at the end, for whoever trains it and holds it meanwhile. Who
// lets go of it has waited for the device; or has left an Unsettled, which is settled before anyone else gets it; or is
// a Vjp (train/vjp.h) or a prediction in the order of a stream, the caller's or the device's own, whose work only the
// device's next work has to come after.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/executor.h"
#include "runtime/fork_safe_mutex.h"
#include "runtime/staged.h"

namespace resnetcore {

// A buffer's rows of one pass, dense.
template <class T>
struct Recorded {
    std::string name;
    std::int64_t width = 0;
    std::vector<Compute<T>> values;
};

// Work on a model that its owner has asked for and not waited for.
class Unsettled {
public:
    // Waits for it. The model is held; what went wrong is the owner's to tell.
    virtual void settle() noexcept = 0;

protected:
    ~Unsettled() = default;
};

template <class T>
class Model {
public:
    using Scalar = T;  // what activations are stored as

    // Checks the topology; parameters start from `seed` (initialize.cpp), the same on every device.
    Model(Topology topology, std::uint64_t seed, Device& device = host_device());
    Model(const Model& other, Device& device);  // same arrays, no shared state

    const Topology& topology() const { return topology_; }
    const ParameterList& parameters() const { return list_; }
    std::uint64_t seed() const { return seed_; }
    std::int64_t outputs() const { return topology_.layers.back().width; }

    // Several parameters of one moment, row-major.
    void read(const std::vector<std::pair<int, Compute<T>*>>& values, Memory in = Memory::host) const;
    // Likewise; nothing can fail once it begins.
    void write(const std::vector<std::pair<int, const Compute<T>*>>& values);

    // out: (rows, outputs). A device takes as many rows at once as so much memory has room for their activations. Where
    // `out` is in its memory, it need not have `waited` for the work at return: then the caller orders what follows
    // (runtime/stream_order.h).
    static constexpr std::int64_t memory_on_device = std::int64_t{512} << 20;
    void predict(Rows<Compute<T>> x, std::int64_t rows, MutableRows<Compute<T>> out, Memory x_in = Memory::host,
                 Memory out_in = Memory::host, bool waited = true);
    // How many rows' activations a device that works on all rows at once keeps in so many bytes; at least one.
    std::int64_t rows_within(std::int64_t bytes);
    // The loss in inference mode; `out` gets the outputs, (rows, outputs). Both it and `target` are the host's.
    double loss(Rows<Compute<T>> x, std::int64_t rows, const LossTarget<T>& target, Compute<T>* out,
                Memory x_in = Memory::host);
    // Layer outputs, and normal paths that were stored.
    std::vector<Recorded<T>> activations(Rows<Compute<T>> x, std::int64_t rows, bool training);

    Plan inference_plan() const;
    Plan training_plan(bool weights_by_tile, bool input_gradient = false) const;
    std::int64_t weight_elements() const;
    int inference_threads(std::int64_t rows) const;  // that pay
    std::int64_t weight_bytes() const { return weight_elements() * static_cast<std::int64_t>(sizeof(T)); }

    Device& device() const { return device_; }

    // For what trains this model. The lock, and the device as the calling thread's; with nothing unsettled but the
    // caller's own.
    class Held {
    public:
        Held(const Model& model, const Unsettled* own) : lock_(model.mutex_), current_(model.device_) {
            if (model.unsettled_ && model.unsettled_ != own) model.unsettled_->settle();
        }

    private:
        const std::unique_lock<ForkSafeMutex> lock_;
        const CurrentDevice current_;
    };
    [[nodiscard]] Held hold(const Unsettled* own = nullptr) const { return Held(*this, own); }
    // While it is held; null again once there is nothing to settle.
    void leave(Unsettled* unsettled) { unsettled_ = unsettled; }
    ParameterStore<T>& store() { return store_; }
    Norms<T>& norms() { return norms_; }
    const KernelTable<T>& kernels() const { return kernels_; }
    void parameters_changed() { folded_is_current_ = false; }
    // The first layer of a training pass over `frame` whose output has a NaN or an infinity; 0 is the input, −1 none.
    // The model is held by the caller, and the frame in memory of its device.
    std::int64_t first_bad_layer(Frame<T> frame);

private:
    // A checked topology, and arrays of zeros. `device` is the calling thread's.
    Model(const CurrentDevice&, Device& device, Topology topology, std::uint64_t seed);
    void check_terms() const;
    void fold();
    void predict_part(Rows<Compute<T>> x, std::int64_t rows, MutableRows<Compute<T>> out, Memory x_in, Memory out_in,
                      bool waited);
    InferenceExecutor<T>& inference();
    std::int64_t rows_of_inference(std::int64_t bytes);
    // A forward pass that keeps every activation.
    std::unique_ptr<BatchExecutor<T>> forward(const Frame<T>& frame, bool training);

    const Topology topology_;
    const ParameterList list_;
    const std::uint64_t seed_;
    Device& device_;
    const KernelTable<T>& kernels_;
    ParameterStore<T> store_;
    Norms<T> norms_;          // of training passes
    Norms<T> running_norms_;  // of inference
    std::vector<Folded<T>> folded_;
    bool folded_is_current_ = false;
    std::unique_ptr<InferenceExecutor<T>> inference_;
    Staged<Compute<T>> input_;
    Returned<Compute<T>> output_;
    Unsettled* unsettled_ = nullptr;
    mutable ForkSafeMutex mutex_;
};

extern template class Model<float>;
extern template class Model<double>;
extern template class Model<bfloat16>;
extern template class Model<bfloat16x2>;

}  // namespace resnetcore

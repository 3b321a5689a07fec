#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.h"
#include "kernels/select.h"
#include "runtime/tiles.h"
#include "topology/check.h"
#include "train/initialize.h"

namespace resnetcore {
namespace {

Topology checked(Topology topology) {
    check_topology(topology);
    return topology;
}

}  // namespace

template <class T>
Model<T>::Model(Topology topology, std::uint64_t seed)
    : topology_(checked(std::move(topology))),
      list_(list_parameters(topology_)),
      seed_(seed),
      kernels_(resnetcore::kernels<T>()),
      store_(list_, kernels_),
      norms_(topology_, list_, store_),
      running_norms_(topology_, list_, store_),
      folded_(list_.all.size()) {
    std::vector<Compute<T>> narrow;
    for (std::size_t id = 0; id < list_.all.size(); ++id) {
        const std::vector<double> value = initial_value(topology_, list_, static_cast<int>(id), seed);
        narrow.assign(value.begin(), value.end());
        if (!std::all_of(narrow.begin(), narrow.end(), [](Compute<T> v) { return std::isfinite(v); }))
            throw ValueError("Network: the initial '" + list_.all[id].name + "' must be finite in the network's dtype");
        store_.write(static_cast<int>(id), narrow.data());
    }
}

template <class T>
Model<T>::Model(const Model& other)
    : topology_(other.topology_),
      list_(list_parameters(topology_)),
      seed_(other.seed_),
      kernels_(other.kernels_),
      store_(list_, kernels_),
      norms_(topology_, list_, store_),
      running_norms_(topology_, list_, store_),
      folded_(list_.all.size()) {
    std::vector<Compute<T>> value;
    std::lock_guard<ForkSafeMutex> lock(other.mutex_);
    for (std::size_t id = 0; id < list_.all.size(); ++id) {
        value.resize(list_.all[id].size());
        other.store_.read(static_cast<int>(id), value.data());
        store_.write(static_cast<int>(id), value.data());
    }
}

template <class T>
void Model<T>::read(const std::vector<std::pair<int, Compute<T>*>>& values) const {
    std::lock_guard<ForkSafeMutex> lock(mutex_);
    for (const auto& [id, value] : values) store_.read(id, value);
}

template <class T>
void Model<T>::write(const std::vector<std::pair<int, const Compute<T>*>>& values) {
    std::lock_guard<ForkSafeMutex> lock(mutex_);
    for (const auto& [id, value] : values) store_.write(id, value);
    parameters_changed();
}

template <class T>
std::int64_t Model<T>::weight_elements() const {
    std::int64_t elements = 0;
    for (const Parameter& p : list_.all) elements += p.size();
    return elements;
}

template <class T>
Plan Model<T>::inference_plan() const {
    PlanOptions options;
    options.element_size = sizeof(T);
    options.stores_input = !computes_itself<T>;
    return make_plan(topology_, list_, options);
}

template <class T>
Plan Model<T>::training_plan(bool weights_by_tile, bool input_gradient) const {
    PlanOptions options;
    options.training = options.backward = true;
    options.weights_by_tile = weights_by_tile;
    options.input_gradient = input_gradient;
    options.element_size = sizeof(T);
    options.stores_input = !computes_itself<T>;
    return make_plan(topology_, list_, options);
}

// In inference y = ((aW − mean)·scale + β) is one product: columns of W scaled, and a bias β − mean·scale.
template <class T>
void Model<T>::fold() {
    if (folded_is_current_) return;
    running_norms_.use_running_statistics();
    for (std::int64_t number = 1; number <= topology_.depth(); ++number) {
        const Layer& layer = topology_.layer(number);
        if (!layer.batch_norm || layer.pre) continue;
        const int weight = list_.layers[number - 1].weight;
        const Norm<T>& norm = running_norms_.of_layer(number);
        Folded<T>& folded = folded_[weight];
        if (folded.panels.size() == 0) {
            const Parameter& p = list_.all[weight];
            folded.panels = AlignedArray<T>(operand_size<T>(p.rows, p.columns, kernels_.panel));
            folded.bias = AlignedArray<Compute<T>>(layer.width);
        }
        const Parameter& p = list_.all[weight];
        std::vector<Compute<T>> dense(p.size());
        store_.read(weight, dense.data());
        for (std::int64_t i = 0; i < p.rows; ++i)
            for (std::int64_t j = 0; j < p.columns; ++j) dense[i * p.columns + j] *= norm.scale[j];
        kernels_.pack_operand(p.rows, p.columns, {dense.data(), p.columns}, folded.panels.data());
        for (std::int64_t j = 0; j < p.columns; ++j)
            folded.bias[j] = static_cast<Compute<T>>(norm.shift[j] - static_cast<double>(norm.mean[j]) * norm.scale[j]);
    }
    folded_is_current_ = true;
}

template <class T>
void Model<T>::predict(Rows<Compute<T>> x, std::int64_t rows, MutableRows<Compute<T>> out) {
    std::lock_guard<ForkSafeMutex> lock(mutex_);
    fold();
    if (!inference_)
        inference_ = std::make_unique<InferenceExecutor<T>>(inference_plan(), kernels_, store_, running_norms_, folded_,
                                                            weight_bytes());
    if (rows == 0) return;
    const int threads = useful_threads(rows * weight_elements(), get_num_threads());
    inference_->prepare(rows, threads);
    run_on_team([&](Team& team) { inference_->run(team, x, rows, out); }, threads);
}

template <class T>
double Model<T>::loss(Rows<Compute<T>> x, std::int64_t rows, LossTarget<T> target, Compute<T>* out) {
    std::vector<double> row_loss(rows);
    predict(x, rows, {out, outputs()});
    LossArgs<T> args;
    args.rows = rows;
    args.columns = outputs();
    args.loss = target.loss;
    args.logits = {out, outputs()};
    args.labels = target.labels;
    args.targets = target.targets;
    args.class_weight = target.class_weight;
    args.sample_weight = target.sample_weight;
    args.label_smoothing = target.label_smoothing;
    args.delta = target.delta;
    args.normaliser = target.normaliser;
    args.row_loss = row_loss.data();
    kernels_.loss(args);
    double sum = 0;
    for (double row : row_loss) sum += row;
    return sum;
}

template <class T>
std::unique_ptr<BatchExecutor<T>> Model<T>::forward(const Frame<T>& frame, bool training) {
    PlanOptions options;
    options.training = training;
    options.keep_activations = true;
    options.element_size = sizeof(T);
    options.stores_input = !computes_itself<T>;
    if (!training) fold();
    norms_.begin_step();
    auto executor = std::make_unique<BatchExecutor<T>>(make_plan(topology_, list_, options), kernels_, store_,
                                                       training ? norms_ : running_norms_,
                                                       training ? nullptr : &folded_, weight_bytes());
    const int threads = get_num_threads();
    executor->prepare(frame.rows, threads);
    run_on_team(
        [&](Team& team) {
            if (team.rank() == 0) executor->begin(frame.rows, team.size());
            team.barrier();
            executor->run(team, frame);
        },
        threads);
    return executor;
}

template <class T>
std::vector<Recorded<T>> Model<T>::activations(Rows<Compute<T>> x, std::int64_t rows, bool training) {
    std::lock_guard<ForkSafeMutex> lock(mutex_);
    Frame<T> frame;
    frame.input = x;
    frame.rows = rows;
    frame.dropout = {seed_, 0, 0};
    const auto executor = forward(frame, training);
    std::vector<Recorded<T>> result;
    const auto& buffers = executor->plan().buffers;
    for (std::size_t id = 0; id < buffers.size(); ++id) {
        const BufferInfo& buffer = buffers[id];
        if (buffer.activation_of < 0 && !buffer.branch) continue;
        const Rows<T> from = executor->rows(static_cast<BufferId>(id), frame);
        Recorded<T> recorded{buffer.name, buffer.width, std::vector<Compute<T>>(rows * buffer.width)};
        kernels_.widen(rows, buffer.width, from, {recorded.values.data(), buffer.width});
        result.push_back(std::move(recorded));
    }
    return result;
}

template <class T>
std::int64_t Model<T>::first_bad_layer(Frame<T> frame) {
    const auto executor = forward(frame, true);
    const auto& buffers = executor->plan().buffers;
    for (std::size_t id = 0; id < buffers.size(); ++id) {
        if (buffers[id].activation_of < 0) continue;
        const Rows<T> rows = executor->rows(static_cast<BufferId>(id), frame);
        if (!std::isfinite(kernels_.largest(frame.rows, buffers[id].width, rows))) return buffers[id].activation_of;
    }
    return -1;
}

template class Model<float>;
template class Model<double>;
template class Model<bfloat16>;
template class Model<bfloat16x2>;

}  // namespace resnetcore

#include "train/model.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "runtime/cost_model.h"
#include "topology/check.h"
#include "train/initialize.h"

namespace resnetcore {
namespace {

Topology checked(Topology topology) {
    check_topology(topology);
    return topology;
}

// Before any memory is asked for: a device's kernels may take matrices so wide and no wider.
Device& checked_for(const Topology& topology, Device& device) {
    std::int64_t widest = topology.inputs;
    for (const Layer& layer : topology.layers) widest = std::max(widest, layer.width);
    if (widest > device.max_columns())
        throw DeviceError("Network: a width is " + std::to_string(widest) + ", and kernels of device \"" +
                          device.name() + "\" take at most " + std::to_string(device.max_columns()) +
                          "; use narrower layers, or device=\"cpu\"");
    return device;
}

}  // namespace

template <class T>
Model<T>::Model(const CurrentDevice&, Device& device, Topology topology, std::uint64_t seed)
    : topology_(std::move(topology)),
      list_(list_parameters(topology_)),
      seed_(seed),
      device_(checked_for(topology_, device)),
      kernels_(device.kernels<T>()),
      store_(list_, device),
      norms_(topology_, list_, store_, device),
      running_norms_(topology_, list_, store_, device),
      folded_(list_.all.size()),
      input_(device),
      output_(device) {
    check_terms();
}

template <class T>
Model<T>::Model(Topology topology, std::uint64_t seed, Device& device)
    : Model(CurrentDevice(device), device, checked(std::move(topology)), seed) {
    const CurrentDevice current(device);
    std::vector<Compute<T>> narrow;
    for (std::size_t id = 0; id < list_.all.size(); ++id) {
        const std::vector<double> value = initial_value(topology_, list_, static_cast<int>(id), seed);
        narrow.assign(value.begin(), value.end());
        if (!std::all_of(narrow.begin(), narrow.end(), [](Compute<T> v) { return std::isfinite(v); }))
            throw ValueError("Network: the initial '" + list_.all[id].name + "' must be finite in the network's dtype");
        store_.write(static_cast<int>(id), narrow.data());
    }
    device_.synchronize();
}

template <class T>
Model<T>::Model(const Model& other, Device& device)
    : Model(CurrentDevice(device), device, other.topology_, other.seed_) {
    std::vector<std::vector<Compute<T>>> values;
    std::vector<std::pair<int, Compute<T>*>> wanted;
    for (std::size_t id = 0; id < list_.all.size(); ++id) {
        values.emplace_back(list_.all[id].size());
        wanted.push_back({static_cast<int>(id), values.back().data()});
    }
    other.read(wanted);
    const CurrentDevice current(device);
    for (const auto& [id, value] : wanted) store_.write(id, value);
    device_.synchronize();
}

// A device's kernels may have room for so many sources and identities, and no more.
template <class T>
void Model<T>::check_terms() const {
    const int most = kernels_.max_terms, terms = training_plan(false, true).max_terms;
    if (most == 0 || terms <= most) return;
    throw DeviceError("Network: a layer, or its gradient, is a sum of " + std::to_string(terms) +
                      " terms, and kernels of device \"" + device_.name() + "\" take at most " + std::to_string(most) +
                      "; use fewer skips side by side, or device=\"cpu\"");
}

template <class T>
void Model<T>::read(const std::vector<std::pair<int, Compute<T>*>>& values, Memory in) const {
    const auto held = hold();
    for (const auto& [id, value] : values) {
        if (in == Memory::host)
            store_.read(id, value);
        else
            store_.read_on_device(id, value);
    }
    if (in == Memory::device) device_.synchronize();
}

template <class T>
void Model<T>::write(const std::vector<std::pair<int, const Compute<T>*>>& values) {
    const auto held = hold();
    for (const auto& [id, value] : values) store_.write(id, value);
    parameters_changed();
    device_.synchronize();
}

template <class T>
std::int64_t Model<T>::weight_elements() const {
    std::int64_t elements = 0;
    for (const Parameter& p : list_.all) elements += p.size();
    return elements;
}

template <class T>
int Model<T>::inference_threads(std::int64_t rows) const {
    if (!device_.is_host()) return 1;
    // That a weight is read takes longer than some products with it.
    const int speed = kernels().product_speed;
    const std::int64_t reading = 2 * std::int64_t{speed};
    return useful_threads((rows + reading) * weight_elements(), speed, get_num_threads());
}

template <class T>
Plan Model<T>::inference_plan() const {
    PlanOptions options;
    options.storage = storage_of<T>;
    options.stores_input = !computes_itself<T>;
    return make_plan(topology_, list_, options);
}

template <class T>
Plan Model<T>::training_plan(bool weights_by_tile, bool input_gradient) const {
    PlanOptions options;
    options.training = options.backward = true;
    options.weights_by_tile = weights_by_tile;
    options.input_gradient = input_gradient;
    options.storage = storage_of<T>;
    options.stores_input = !computes_itself<T>;
    return make_plan(topology_, list_, options);
}

// In inference y = ((aW − mean)·scale + β) is one product: columns of W scaled, and a bias β − mean·scale.
template <class T>
void Model<T>::fold() {
    if (folded_is_current_) return;
    bool has_norms = false;
    running_norms_.use_running_statistics();
    for (std::int64_t number = 1; number <= topology_.depth(); ++number) {
        const Layer& layer = topology_.layer(number);
        has_norms |= layer.batch_norm;
        if (!layer.batch_norm || layer.pre) continue;
        const int weight = list_.layers[number - 1].weight;
        Norm<T>& norm = running_norms_.of_layer(number);
        Folded<T>& folded = folded_[weight];
        const Parameter& p = list_.all[weight];
        if (folded.panels.size() == 0) {
            folded.bias = AlignedArray<Compute<T>>(device_, layer.width);
            folded.panels = AlignedArray<T>(device_, operand_size(kernels_, p.rows, p.columns));
        }
        kernels_.fold(
            {p.rows, p.columns, store_.values(weight), norm.coefficients(), folded.panels.data(), folded.bias.data()});
    }
    if (has_norms) device_.synchronize();  // an error of this work is to be raised before it counts as done
    folded_is_current_ = true;
}

template <class T>
InferenceExecutor<T>& Model<T>::inference() {
    if (!inference_)
        inference_ = std::make_unique<InferenceExecutor<T>>(inference_plan(), device_, store_, running_norms_, folded_,
                                                            weight_bytes());
    return *inference_;
}

template <class T>
std::int64_t Model<T>::rows_within(std::int64_t bytes) {
    const auto held = hold();
    return rows_of_inference(bytes);
}

template <class T>
std::int64_t Model<T>::rows_of_inference(std::int64_t bytes) {
    return std::max<std::int64_t>(bytes / inference().row_bytes(), 1);
}

template <class T>
void Model<T>::predict(Rows<Compute<T>> x, std::int64_t rows, MutableRows<Compute<T>> out, Memory x_in, Memory out_in,
                       bool waited) {
    if (rows == 0) return;
    const auto held = hold();
    fold();
    const std::int64_t most = device_.is_host() ? rows : rows_of_inference(memory_on_device);
    for (std::int64_t begin = 0; begin < rows; begin += most)
        predict_part({x.data + begin * x.stride, x.stride}, std::min(most, rows - begin),
                     {out.data + begin * out.stride, out.stride}, x_in, out_in, waited);
}

template <class T>
void Model<T>::predict_part(Rows<Compute<T>> x, std::int64_t rows, MutableRows<Compute<T>> out, Memory x_in,
                            Memory out_in, bool waited) {
    InferenceExecutor<T>& executor = inference();
    const int threads = inference_threads(rows);
    executor.prepare(rows, threads);
    const Rows<Compute<T>> input = input_.rows(x, rows, topology_.inputs, x_in);
    const MutableRows<Compute<T>> output = output_.begin(out, rows, outputs(), out_in);
    run_on_team([&](Team& team) { executor.run(team, input, rows, output); }, threads);
    if (waited || out_in == Memory::host) output_.finish();
}

// On the host, where the outputs are in any case.
template <class T>
double Model<T>::loss(Rows<Compute<T>> x, std::int64_t rows, const LossTarget<T>& target, Compute<T>* out,
                      Memory x_in) {
    std::vector<double> row_loss(rows);
    predict(x, rows, {out, outputs()}, x_in);
    LossArgs<Compute<T>> args;
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
    host_device().kernels<Compute<T>>().loss(args);
    double sum = 0;
    for (double row : row_loss) sum += row;
    return sum;
}

template <class T>
std::unique_ptr<BatchExecutor<T>> Model<T>::forward(const Frame<T>& frame, bool training) {
    PlanOptions options;
    options.training = training;
    options.keep_activations = true;
    options.storage = storage_of<T>;
    options.stores_input = !computes_itself<T>;
    if (!training) fold();
    auto executor = std::make_unique<BatchExecutor<T>>(make_plan(topology_, list_, options), device_, store_,
                                                       training ? norms_ : running_norms_,
                                                       training ? nullptr : &folded_, weight_bytes());
    const int threads = device_.is_host() ? get_num_threads() : 1;
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
    const auto held = hold();
    const PhiloxKey key{seed_, 0, 0};
    Staged<PhiloxKey> dropout(device_);
    Returned<Compute<T>> returned(device_);
    Frame<T> frame;
    frame.input = input_.rows(x, rows, topology_.inputs);
    frame.rows = rows;
    frame.dropout = dropout.values(&key, 1);
    const auto executor = forward(frame, training);
    std::vector<Recorded<T>> result;
    const auto& buffers = executor->plan().buffers;
    for (std::size_t id = 0; id < buffers.size(); ++id) {
        const BufferInfo& buffer = buffers[id];
        if (buffer.activation_of < 0 && !buffer.branch) continue;
        const Rows<T> from = executor->rows(static_cast<BufferId>(id), frame);
        Recorded<T> recorded{buffer.name, buffer.width, std::vector<Compute<T>>(rows * buffer.width)};
        const MutableRows<Compute<T>> to{recorded.values.data(), buffer.width};
        kernels_.widen(rows, buffer.width, from, returned.begin(to, rows, buffer.width));
        returned.finish();
        result.push_back(std::move(recorded));
    }
    return result;
}

template <class T>
std::int64_t Model<T>::first_bad_layer(Frame<T> frame) {
    const auto executor = forward(frame, true);
    const auto& buffers = executor->plan().buffers;
    AlignedArray<double> largest(device_, 1);
    for (std::size_t id = 0; id < buffers.size(); ++id) {
        if (buffers[id].activation_of < 0) continue;
        double found = 0;
        // Buffers come in the order of the layers, so what was found before is finite, and smaller than what is not.
        kernels_.largest(
            {frame.rows, buffers[id].width, executor->rows(static_cast<BufferId>(id), frame), largest.data()});
        device_.download(&found, largest.data(), sizeof found);
        if (!std::isfinite(found)) return buffers[id].activation_of;
    }
    return -1;
}

template class Model<float>;
template class Model<double>;
template class Model<bfloat16>;
template class Model<bfloat16x2>;

}  // namespace resnetcore

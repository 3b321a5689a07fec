#include "xla/stack_program.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <tuple>
#include <utility>

#include "files/topology_text.h"

namespace resnetcore::xla {
namespace {

// So many rows' that packing the weights for them costs next to nothing.
constexpr std::int64_t prediction_tape = 1 << 24;
constexpr std::size_t most_kept = 64;

bool is_aligned(const void* tape) { return reinterpret_cast<std::uintptr_t>(tape) % 64 == 0; }

using Key = std::tuple<std::string, bool, bool>;

struct Registry {
    ForkSafeMutex mutex;
    std::map<Key, std::weak_ptr<const AnyStackProgram>> all;
    std::deque<std::shared_ptr<const AnyStackProgram>> kept;  // the latest called last
};

// Never destroyed: XLA's threads may still be calling when the process ends.
Registry& registry() {
    static Registry& one = *new Registry;
    return one;
}

template <class T>
AnyStackProgram made(const Topology& topology, const VjpOptions& options) {
    return std::make_unique<StackProgram<T>>(topology, options);
}

AnyStackProgram make(const std::string& text, bool training, bool input_gradient) {
    NetworkText network = read_topology(text);
    for (Layer& layer : network.topology.layers)
        for (Skip& skip : layer.skips)  // a fixed matrix comes with each call
            skip.matrix.resize(static_cast<std::size_t>(skip.rows * skip.columns));
    VjpOptions options{training, input_gradient};
    options.transposed = false;
    const std::string& products = network.matmul_precision;
    if (network.dtype == "float64") return made<double>(network.topology, options);
    if (network.dtype == "float32" && products == "highest") return made<float>(network.topology, options);
    if (network.dtype == "float32" && products == "high") return made<bfloat16x2>(network.topology, options);
    return made<bfloat16>(network.topology, options);
}

}  // namespace

template <class T>
void StackProgram<T>::forward(VjpPass<T> pass, Compute<T>* out, const std::vector<Compute<T>*>& statistics) {
    if (pass.tape && is_aligned(pass.tape)) return vjp_.forward(pass, out, statistics);
    const std::lock_guard<ForkSafeMutex> lock(mutex_);
    if (!pass.tape && !vjp_.options().training) return predict(pass, out);
    void* const tape = pass.tape;
    memory_.reserve(tape_bytes(pass.rows));
    pass.tape = memory_.data();
    vjp_.forward(pass, out, statistics);
    if (tape) std::memcpy(tape, memory_.data(), static_cast<std::size_t>(tape_bytes(pass.rows)));
}

// Rows do not see each other: in parts, whose tapes are forgotten one after the other.
template <class T>
void StackProgram<T>::predict(VjpPass<T> pass, Compute<T>* out) {
    const std::int64_t rows = pass.rows, row_bytes = std::max<std::int64_t>(1, vjp_.tape_bytes_of_row());
    const std::int64_t part = std::min(rows, std::max<std::int64_t>(1, prediction_tape / row_bytes));
    memory_.reserve(tape_bytes(part));
    pass.tape = memory_.data();
    const Rows<Compute<T>> x = pass.x;
    const std::vector<Compute<T>*> no_statistics(vjp_.parameters().all.size());
    for (std::int64_t row = 0; row < rows; row += part) {
        pass.x.data = x.data + row * x.stride;
        pass.rows = std::min(part, rows - row);
        vjp_.forward(pass, out + row * vjp_.outputs(), no_statistics);
    }
}

template <class T>
void StackProgram<T>::backward(VjpPass<T> pass, const Compute<T>* d_out, Compute<T>* d_x,
                               const std::vector<Compute<T>*>& gradients) {
    if (is_aligned(pass.tape)) return vjp_.backward(pass, d_out, d_x, gradients);
    const std::lock_guard<ForkSafeMutex> lock(mutex_);
    memory_.reserve(tape_bytes(pass.rows));
    std::memcpy(memory_.data(), pass.tape, static_cast<std::size_t>(tape_bytes(pass.rows)));
    pass.tape = memory_.data();
    vjp_.backward(pass, d_out, d_x, gradients);
}

std::shared_ptr<const AnyStackProgram> find_stack(std::string topology, bool training, bool input_gradient, bool keep) {
    Registry& known = registry();
    const std::lock_guard<ForkSafeMutex> lock(known.mutex);
    Key key{std::move(topology), training, input_gradient};
    if (const auto found = known.all.find(key); found != known.all.end())
        if (auto program = found->second.lock()) {
            const auto at = std::find(known.kept.begin(), known.kept.end(), program);
            if (at != known.kept.end()) std::rotate(at, at + 1, known.kept.end());
            return program;
        }
    for (auto at = known.all.begin(); at != known.all.end();)
        at = at->second.expired() ? known.all.erase(at) : std::next(at);
    auto program = std::make_shared<const AnyStackProgram>(make(std::get<std::string>(key), training, input_gradient));
    known.all[std::move(key)] = program;
    if (keep) known.kept.push_back(program);
    if (known.kept.size() > most_kept) known.kept.pop_front();
    return program;
}

template class StackProgram<float>;
template class StackProgram<double>;
template class StackProgram<bfloat16>;
template class StackProgram<bfloat16x2>;

}  // namespace resnetcore::xla

#include "train/strategy.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

#include "base/error.h"
#include "runtime/fork_safe_mutex.h"

namespace resnetcore {
namespace {

const char* const names[] = {"by_layer", "by_tile", "auto"};
constexpr int automatic = 2;

int index_of(const std::string& name) {
    for (int i = 0; i < 3; ++i)
        if (name == names[i]) return i;
    throw ValueError("strategy must be \"auto\", \"by_layer\" or \"by_tile\", got \"" + name + "\"");
}

std::atomic<int>& forced() {
    static std::atomic<int> value{[] {
        const char* given = std::getenv("RESNETCORE_STRATEGY");
        return given && *given ? index_of(given) : automatic;
    }()};
    return value;
}

// As devices were told, which read it once.
bool path_is_forced() {
    static const bool is = [] {
        const char* given = std::getenv("RESNETCORE_CUDA_PATH");
        return given && *given;
    }();
    return is;
}

using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, int, std::string>;
Key key(const StepShape& s) {
    return {s.rows, s.weights, s.row_width, s.element_size, s.one_phase, s.threads, s.device};
}

struct Tuned {
    ForkSafeMutex mutex;
    std::map<Key, Choice> choices;
};
// Never destroyed: a framework's threads may still be calling when the process ends.
Tuned& tuned() {
    static Tuned& all = *new Tuned;
    return all;
}

}  // namespace

void remember(const StepShape& shape, Strategy strategy, int threads) {
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    all.choices[key(shape)] = {strategy, threads, "tuned"};
}
void remember(const StepShape& shape, int path) {
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    all.choices[key(shape)] = {Strategy::by_layer, 1, "tuned", path};
}

std::optional<Choice> remembered(const StepShape& shape) {
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    const auto found = all.choices.find(key(shape));
    return found == all.choices.end() ? std::nullopt : std::optional<Choice>(found->second);
}
void forget(const StepShape& shape) {
    Tuned& all = tuned();
    std::lock_guard<ForkSafeMutex> lock(all.mutex);
    all.choices.erase(key(shape));
}

Strategy find_strategy(const std::string& name) {
    const int index = index_of(name);
    if (index == automatic) throw ValueError("strategy must be \"by_layer\" or \"by_tile\", got \"auto\"");
    return static_cast<Strategy>(index);
}

void set_strategy(const std::string& name) { forced().store(index_of(name)); }
std::string get_strategy() { return names[forced().load()]; }

Choice choose_strategy(const StepShape& shape) {
    const int given = forced().load();
    if (shape.in_tiles && given != automatic) return {static_cast<Strategy>(given), shape.threads, "forced"};
    if (shape.in_tiles || !path_is_forced())
        if (const std::optional<Choice> found = remembered(shape)) return *found;
    return shape.in_tiles ? cheapest_strategy(shape)
                          : Choice{Strategy::by_layer, 1, "the device takes all rows at once"};
}

}  // namespace resnetcore

#include "knowledge.h"

#include <algorithm>

namespace emulation {
namespace hopper {

void join(Clock& into, const Clock& other) {
    if (into.size() < other.size()) into.resize(other.size());
    for (std::size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

void Knowledge::begin(int threads) {
    threads_ = threads;
    clocks_.assign(static_cast<std::size_t>(threads), Clock(static_cast<std::size_t>(threads + most_barriers)));
    for (int i = 0; i < threads; ++i) clocks_[i][i] = 1;
}

void Knowledge::tell(int thread, Clock& into) {
    join(into, clocks_[thread]);
    ++clocks_[thread][thread];
}

void Knowledge::meet(int begin, int end) {
    Clock all;
    for (int i = begin; i < end; ++i) tell(i, all);
    for (int i = begin; i < end; ++i) learn(i, all);
}

Knowledge& knowledge() {
    static thread_local Knowledge all;
    return all;
}

}  // namespace hopper
}  // namespace emulation

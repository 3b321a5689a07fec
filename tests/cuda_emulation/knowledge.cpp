#include "knowledge.h"

#include <algorithm>

namespace emulation {

namespace {

void join(std::uint32_t* into, const std::uint32_t* other, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) into[i] = std::max(into[i], other[i]);
}

}  // namespace

void Knowledge::begin(int threads) {
    threads_ = threads;
    clocks_.assign(static_cast<std::size_t>(threads) * size(), 0);
    for (int i = 0; i < threads; ++i) clock(i)[i] = 1;
}

void Knowledge::tell(int thread, Clock& into) {
    into.resize(size());
    join(into.data(), clock(thread), size());
    ++clock(thread)[thread];
}

void Knowledge::learn(int thread, const Clock& from) { join(clock(thread), from.data(), from.size()); }

void Knowledge::meet(int begin, int end) {
    Clock all;
    for (int i = begin; i < end; ++i) tell(i, all);
    for (int i = begin; i < end; ++i) {  // which is all that they know, but for what is later
        const std::uint32_t later = clock(i)[i];
        std::copy(all.begin(), all.end(), clock(i));
        clock(i)[i] = later;
    }
}

Knowledge& knowledge() {
    static thread_local Knowledge all;
    return all;
}

}  // namespace emulation

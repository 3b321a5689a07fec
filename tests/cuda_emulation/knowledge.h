// What each thread of a block knows to have happened: vector clocks (Mattern 1989).
//
// Invariant: a thread comes to know of another's deeds by a barrier alone, and then of those before the other's
// arrival. A completed phase of a barrier counts as a deed of the barrier's own, which is how copies become known.
#pragma once

#include <cstdint>
#include <vector>

namespace emulation {

constexpr int most_barriers = 64;

struct Moment {
    int who = -1;  // a thread, or a barrier, counted on behind the threads; -1: before the block began
    std::uint32_t when = 0;
};

using Clock = std::vector<std::uint32_t>;

class Knowledge {
public:
    void begin(int threads);
    int threads() const { return threads_; }
    int barrier(int index) const { return threads_ + index; }

    Moment now(int thread) const { return {thread, clock(thread)[thread]}; }
    bool knows(int thread, Moment moment) const { return moment.who < 0 || clock(thread)[moment.who] >= moment.when; }
    // `into` learns all that the thread knows; what it does from now on is later.
    void tell(int thread, Clock& into);
    void learn(int thread, const Clock& from);
    void meet(int begin, int end);

private:
    std::size_t size() const { return static_cast<std::size_t>(threads_ + most_barriers); }
    const std::uint32_t* clock(int thread) const { return clocks_.data() + static_cast<std::size_t>(thread) * size(); }
    std::uint32_t* clock(int thread) { return clocks_.data() + static_cast<std::size_t>(thread) * size(); }

    int threads_ = 0;
    std::vector<std::uint32_t> clocks_;  // [thread][whose deeds]
};

Knowledge& knowledge();  // of the block that runs

}  // namespace emulation

// Blocks that are there at a time, each on a host thread of its own, because shared memory is that thread's variables.
//
// Invariant: one of them goes on at a time, until all of its threads wait for other blocks. So what a block reads of
// another that it has not met is there too early or too late every time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace emulation {

class Grid {
public:
    Grid(int blocks, bool backwards) : blocks_(blocks), now_(backwards ? blocks - 1 : 0), backwards_(backwards) {}

    void run(const std::function<void(int)>& block);

    // By the block whose turn it is: others have gone on when it returns. False where every one of them has been asked
    // since this one could: `idle` counts that.
    bool let_others_go_on(int& idle);
    // Comes to the meeting; the turn that is over when all have.
    unsigned come(const std::uint32_t* word);
    unsigned turn() const { return turn_; }

private:
    void pass_on(std::unique_lock<std::mutex>& lock);

    const int blocks_;
    int now_;
    const bool backwards_;
    int ended_ = 0, arrived_ = 0;
    unsigned turn_ = 0;
    const std::uint32_t* word_ = nullptr;
    std::vector<bool> has_ended_;
    std::mutex mutex_;
    std::condition_variable changed_;
};

}  // namespace emulation

// Blocks that are there at a time, each on a host thread of its own, because shared memory is that thread's variables.
//
// Invariant: one of them goes on at a time, until a thread of it comes to where blocks wait for each other, or all of
// its threads wait. So what a block reads of another that it has not met is there too early or too late every time.
#pragma once

#include <condition_variable>
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

private:
    void pass_on(std::unique_lock<std::mutex>& lock);

    const int blocks_;
    int now_;
    const bool backwards_;
    int ended_ = 0;
    std::vector<bool> has_ended_;
    std::mutex mutex_;
    std::condition_variable changed_;
};

}  // namespace emulation

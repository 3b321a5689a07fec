#include "grid.h"

#include <thread>

namespace emulation {

void Grid::run(const std::function<void(int)>& block) {
    has_ended_.assign(static_cast<std::size_t>(blocks_), false);
    std::vector<std::thread> threads;
    for (int at = 0; at < blocks_; ++at)
        threads.emplace_back([&, at] {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                changed_.wait(lock, [&] { return now_ == at; });
            }
            block(at);
            std::unique_lock<std::mutex> lock(mutex_);
            has_ended_[static_cast<std::size_t>(at)] = true;
            if (++ended_ < blocks_) pass_on(lock);
        });
    for (std::thread& thread : threads) thread.join();
}

void Grid::pass_on(std::unique_lock<std::mutex>&) {
    do now_ = (now_ + (backwards_ ? blocks_ - 1 : 1)) % blocks_;
    while (has_ended_[static_cast<std::size_t>(now_)]);
    changed_.notify_all();
}

bool Grid::let_others_go_on(int& idle) {
    // The others may have waited for each other first.
    if (++idle > blocks_) return false;
    std::unique_lock<std::mutex> lock(mutex_);
    const int own = now_;
    pass_on(lock);
    changed_.wait(lock, [&] { return now_ == own; });
    return true;
}

}  // namespace emulation

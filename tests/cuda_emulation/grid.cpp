#include "grid.h"

#include <thread>

#include "block.h"

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
    // The last to come has let a meeting end, and may be the first to be asked: all have been twice.
    if (++idle > 2) return false;
    std::unique_lock<std::mutex> lock(mutex_);
    const int own = now_;
    pass_on(lock);
    changed_.wait(lock, [&] { return now_ == own; });
    return true;
}

unsigned Grid::come(const std::uint32_t* word) {
    if (arrived_ > 0 && word != word_) fail("blocks meet by different words");
    if ((*word & 0x7fffffff) != 0) fail("blocks meet by a word that is not 0");
    word_ = word;
    const unsigned turn = turn_;
    if (++arrived_ == blocks_) arrived_ = 0, ++turn_;
    return turn;
}

}  // namespace emulation

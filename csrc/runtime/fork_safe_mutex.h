// A mutex that a forked child can take although another thread of its parent held it at the fork: that thread does
// not exist in the child, so the child starts with a fresh mutex.
#pragma once

#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace resnetcore {

class ForkSafeMutex {
public:
    void lock() {
        const pid_t now = getpid();
        if (owner_.load(std::memory_order_acquire) != now) {
            // Destroying a locked mutex is undefined, so the parent's is left where it is.
            (void)mutex_.release();
            mutex_ = std::make_unique<std::mutex>();
            owner_.store(now, std::memory_order_release);
        }
        mutex_->lock();
    }
    void unlock() { mutex_->unlock(); }

private:
    std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
    std::atomic<pid_t> owner_{getpid()};
};

}  // namespace resnetcore

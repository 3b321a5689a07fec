// A mutex that a forked child can take although another thread of its parent held it at the fork: that thread does
// not exist in the child, so the child starts with a fresh mutex.
//
// Who waits for it is next: a thread that lets go and at once wants it again, as one that trains does step by step,
// would keep a std::mutex from all others for as long as it likes.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "runtime/process.h"

namespace resnetcore {

class ForkSafeMutex {
public:
    ForkSafeMutex() = default;
    ForkSafeMutex(const ForkSafeMutex&) = delete;
    ~ForkSafeMutex() { delete current_.load(std::memory_order_relaxed); }

    void lock() {
        Owned* owned = current_.load(std::memory_order_acquire);
        const pid_t now = this_process();
        if (owned->process != now) {
            // The parent's is left where it is: destroying a locked mutex is undefined. Of several threads that come
            // here first, one wins.
            auto fresh = std::make_unique<Owned>();
            if (current_.compare_exchange_strong(owned, fresh.get(), std::memory_order_acq_rel)) (void)fresh.release();
            owned = current_.load(std::memory_order_acquire);
        }
        const std::lock_guard<std::mutex> next(owned->next);
        owned->mutex.lock();
    }
    void unlock() { current_.load(std::memory_order_acquire)->mutex.unlock(); }

private:
    struct Owned {
        const pid_t process = this_process();
        std::mutex next;  // of who is to have `mutex` after its holder
        std::mutex mutex;
    };
    std::atomic<Owned*> current_{new Owned};
};

}  // namespace resnetcore

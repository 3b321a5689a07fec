// Beyond a limit on the size of files, Linux sends SIGXFSZ, which ends a program that does not expect it: while one of
// these exists, the write of this thread fails with EFBIG instead.
#pragma once

#include <csignal>
#include <ctime>

namespace resnetcore {

class WithoutSizeSignal {
public:
    WithoutSizeSignal() {
        sigemptyset(&signal_);
        sigaddset(&signal_, SIGXFSZ);
        sigset_t pending;
        sigpending(&pending);
        was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
        pthread_sigmask(SIG_BLOCK, &signal_, &before_);
    }
    ~WithoutSizeSignal() {
        const timespec now{};
        if (!was_pending_) sigtimedwait(&signal_, nullptr, &now);
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
    WithoutSizeSignal(const WithoutSizeSignal&) = delete;

private:
    sigset_t signal_, before_;
    bool was_pending_ = false;
};

}  // namespace resnetcore

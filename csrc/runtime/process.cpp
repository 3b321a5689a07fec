#include "runtime/process.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace resnetcore {
namespace {

std::atomic<pid_t> current{0};

void ask() { current.store(getpid(), std::memory_order_relaxed); }

// When the library is loaded: another thread's fork may come at any time afterwards.
bool follow_forks() noexcept {
    ask();
    return pthread_atfork(nullptr, nullptr, ask) == 0;
}
const bool is_told = follow_forks();

}  // namespace

pid_t this_process() { return is_told ? current.load(std::memory_order_relaxed) : getpid(); }

}  // namespace resnetcore

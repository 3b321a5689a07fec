#include "runtime/team.h"

#include <chrono>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace resnetcore {
namespace {

// Thrown out of a barrier where another thread of the team has failed. Not a std::exception: it is no error of this
// thread, and whoever handles those must let it pass.
struct Abandoned {};

}  // namespace

void Patience::wait() {
    if (++looks_ > 4000) return std::this_thread::sleep_for(std::chrono::microseconds(20));
    if (looks_ > 2000) return std::this_thread::yield();
#if defined(__x86_64__)
    _mm_pause();
#endif
}

void Team::barrier() {
    if (size_ > 1) run_.barrier(size_, phase_);
}

void Team::wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value) {
    if (counter.load(std::memory_order_acquire) != value) run_.wait_for(counter, value);
}

void Run::work(int rank, int size) noexcept {
    Team team(*this, rank, size);
    try {
        body_(team);
    } catch (const Abandoned&) {
    } catch (...) {
        std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
        failed_.store(true, std::memory_order_release);
    }
}

void Run::rethrow() const {
    if (error_) std::rethrow_exception(error_);
}

void Run::barrier(int size, int& phase) {
    const int next = ++phase;
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(next, std::memory_order_release);
    }
    spin_until(
        [&] { return phase_.load(std::memory_order_acquire) == next || failed_.load(std::memory_order_acquire); });
    leave_if_failed();
}

void Run::wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value) {
    spin_until(
        [&] { return counter.load(std::memory_order_acquire) == value || failed_.load(std::memory_order_acquire); });
    leave_if_failed();
}

void Run::leave_if_failed() const {
    // NOLINTNEXTLINE(bugprone-std-exception-baseclass)
    if (failed_.load(std::memory_order_acquire)) throw Abandoned{};
}

}  // namespace resnetcore

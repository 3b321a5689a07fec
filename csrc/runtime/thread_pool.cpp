#include "runtime/thread_pool.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "runtime/fork_safe_mutex.h"
#include "runtime/thread_count.h"

namespace resnetcore {
namespace {

// Thrown out of a barrier where another thread of the team has failed. Not a std::exception: it is no error of this
// thread, and whoever handles those must let it pass.
struct Abandoned {};

// Waits for `ready`: busily at first, as a wake costs more than a short phase; then giving the core away between looks;
// and where that takes long, someone else needs the core (the thread waited for, perhaps), so sleeping between them.
template <class Ready>
void spin_until(Ready ready) {
    for (int i = 0; !ready(); ++i) {
        if (i > 4000) {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
            continue;
        }
        if (i > 2000) {
            std::this_thread::yield();
            continue;
        }
#if defined(__x86_64__)
        _mm_pause();
#endif
    }
}

}  // namespace

class Pool {
public:
    void run(const TeamBody& body, int size) {
        start_workers(size - 1);
        body_ = &body;
        failed_.store(false, std::memory_order_relaxed);
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(0, std::memory_order_relaxed);
        running_.store(size - 1, std::memory_order_relaxed);
        publish(size);
        work(0, size);
        spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

    void barrier(int size, int& phase) {
        const int next = ++phase;
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(next, std::memory_order_release);
        }
        spin_until(
            [&] { return phase_.load(std::memory_order_acquire) == next || failed_.load(std::memory_order_acquire); });
        leave_if_failed();
    }

    void wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value) {
        spin_until([&] {
            return counter.load(std::memory_order_acquire) == value || failed_.load(std::memory_order_acquire);
        });
        leave_if_failed();
    }

private:
    void leave_if_failed() const {
        // NOLINTNEXTLINE(bugprone-std-exception-baseclass)
        if (failed_.load(std::memory_order_acquire)) throw Abandoned{};
    }

    void start_workers(int wanted) {
        while (workers_ < wanted) {
            const int rank = workers_ + 1;
            // A worker sleeps or runs until the process ends; it is never joined, so it owns nothing.
            std::thread([this, rank, seen = ticket_.load()]() mutable { worker(rank, seen); }).detach();
            ++workers_;
        }
    }

    // Run number and team size travel in one word, so that no worker can pair one run's number with another's size.
    void publish(int size) {
        const std::uint64_t next =
            ((ticket_.load(std::memory_order_relaxed) >> 16) + 1) << 16 | static_cast<unsigned>(size);
        ticket_.store(next, std::memory_order_seq_cst);
        if (size > 1 && sleepers_.load(std::memory_order_seq_cst) > 0) {
            std::lock_guard<std::mutex> lock(sleep_mutex_);
            wake_.notify_all();
        }
    }

    void worker(int rank, std::uint64_t seen) {
        for (;;) {
            seen = next_ticket(seen);
            const int size = static_cast<int>(seen & 0xffff);
            if (rank >= size) continue;
            work(rank, size);
            running_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    std::uint64_t next_ticket(std::uint64_t seen) {
        using Clock = std::chrono::steady_clock;
        const auto patience = Clock::now() + std::chrono::microseconds(50);
        while (Clock::now() < patience) {
            const std::uint64_t now = ticket_.load(std::memory_order_acquire);
            if (now != seen) return now;
#if defined(__x86_64__)
            for (int i = 0; i < 16; ++i) _mm_pause();
#endif
        }
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) != seen; });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        return ticket_.load(std::memory_order_acquire);
    }

    void work(int rank, int size) {
        Team team(*this, rank, size);
        try {
            (*body_)(team);
        } catch (const Abandoned&) {
        } catch (...) {
            std::lock_guard<std::mutex> lock(error_mutex_);
            if (!error_) error_ = std::current_exception();
            failed_.store(true, std::memory_order_release);
        }
    }

    const TeamBody* body_ = nullptr;
    std::atomic<std::uint64_t> ticket_{0};
    std::atomic<int> arrived_{0}, phase_{0}, running_{0}, sleepers_{0};
    std::atomic<bool> failed_{false};
    std::mutex sleep_mutex_, error_mutex_;
    std::condition_variable wake_;
    std::exception_ptr error_;
    int workers_ = 0;
};

void Team::barrier() {
    if (size_ > 1) pool_.barrier(size_, phase_);
}

void Team::wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value) {
    if (counter.load(std::memory_order_acquire) != value) pool_.wait_for(counter, value);
}

namespace {

std::atomic<Pool*> current{nullptr};

// The parent's pool is left as it is in the child: its threads do not exist here, and it may have been in use.
void forget_pool() { current.store(nullptr); }

Pool& pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    if (!current.load()) current.store(new Pool);
    return *current.load();
}

ForkSafeMutex& turn() {
    static ForkSafeMutex mutex;
    return mutex;
}

std::atomic<int> threads{0};
thread_local int limit = 0;
std::atomic<const char*> origin{""};

}  // namespace

void run_on_team(TeamBody body, int max_threads) {
    int size = get_num_threads();
    if (max_threads > 0 && max_threads < size) size = max_threads;
    std::lock_guard<ForkSafeMutex> lock(turn());
    pool().run(body, size);
}

int get_num_threads() {
    const int all = threads_of_process();
    return limit > 0 && limit < all ? limit : all;
}

int limit_threads(int count) { return std::exchange(limit, count); }

int threads_of_process() {
    if (threads.load() == 0) {
        const ThreadCount count = default_thread_count();
        origin.store(count.origin);
        int none = 0;
        threads.compare_exchange_strong(none, count.threads);
    }
    return threads.load();
}

void set_num_threads(int count) {
    check_thread_count("set_num_threads", count);
    threads.store(count);
    origin.store("set_num_threads");
}

const char* num_threads_origin() {
    threads_of_process();
    return origin.load();
}

}  // namespace resnetcore

#include "runtime/thread_pool.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "runtime/fork_safe_mutex.h"
#include "runtime/host_team.h"
#include "runtime/thread_count.h"

namespace resnetcore {
namespace {

class Pool {
public:
    void run(Run& run, int most) {
        const int size = 1 + start_workers(most - 1);
        run_ = &run;
        running_.store(size - 1, std::memory_order_relaxed);
        publish(size);
        run.work(0, size);
        spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
    }

private:
    // How many there are now: so many, or fewer where the system has no thread left for this process.
    int start_workers(int wanted) {
        while (workers_ < wanted) {
            const int rank = workers_ + 1;
            try {
                // A worker sleeps or runs until the process ends; it is never joined, so it owns nothing.
                std::thread([this, rank, seen = ticket_.load()]() mutable { worker(rank, seen); }).detach();
            } catch (const std::system_error&) {
                return workers_;
            }
            ++workers_;
        }
        return wanted;
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
            run_->work(rank, size);
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

    Run* run_ = nullptr;
    std::atomic<std::uint64_t> ticket_{0};
    std::atomic<int> running_{0}, sleepers_{0};
    std::mutex sleep_mutex_;
    std::condition_variable wake_;
    int workers_ = 0;
};

std::atomic<Pool*> current_pool{nullptr};

// The parent's pool is left as it is in the child: its threads do not exist here, and it may have been in use.
void forget_pool() { current_pool.store(nullptr); }

Pool& pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    if (!current_pool.load()) current_pool.store(new Pool);
    return *current_pool.load();
}

// Never destroyed: a framework's threads may still be calling when the process ends.
ForkSafeMutex& turn() {
    static ForkSafeMutex& mutex = *new ForkSafeMutex;
    return mutex;
}

std::atomic<int> threads{0};
thread_local int host_threads = 0;
std::atomic<const char*> origin{""};

}  // namespace

void run_on_team(TeamBody body, int max_threads) {
    int size = get_num_threads();
    if (max_threads > 0 && max_threads < size) size = max_threads;
    Run run(body);
    {
        const std::lock_guard<ForkSafeMutex> lock(turn());
        if (host_threads == 0 || !run_on_host_team(run, size, host_threads)) pool().run(run, size);
    }
    run.rethrow();
}

int get_num_threads() {
    const int all = threads_of_process();
    return host_threads > 0 && host_threads < all ? host_threads : all;
}

int use_host_threads(int count) { return std::exchange(host_threads, count); }

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

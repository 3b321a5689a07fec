// What the threads of one run see of it: who they are, and where they meet. No allocation.
//
// Invariant: all threads of a run are running at the same time, whoever they belong to (our pool, or the program around
// us), so that they may wait for each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace resnetcore {

class Run;

// The threads of one run, as seen by one of them.
class Team {
public:
    Team(Run& run, int rank, int size) : run_(run), rank_(rank), size_(size) {}
    int rank() const { return rank_; }
    int size() const { return size_; }
    // Returns once every thread of the team has called it; what they wrote before is visible after.
    void barrier();
    // Returns once `counter` is `value`, which another thread of the team will make it.
    void wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value);

private:
    Run& run_;
    const int rank_, size_;
    int phase_ = 0;
};

// What a team runs: any function of a Team&, which outlives the run. Unlike a std::function it owns nothing, and so
// never allocates.
class TeamBody {
public:
    template <class Function>
    TeamBody(const Function& function)
        : function_(&function), call_([](const void* f, Team& team) { (*static_cast<const Function*>(f))(team); }) {}
    void operator()(Team& team) const { call_(function_, team); }

private:
    const void* function_;
    void (*call_)(const void*, Team&);
};

class Run {
public:
    explicit Run(TeamBody body) : body_(body) {}

    // By each of `size` threads, as one of the ranks 0 … size−1. Throws nothing.
    void work(int rank, int size) noexcept;
    // By one thread, after all of them have returned: the first exception of any of them.
    void rethrow() const;

private:
    friend class Team;
    void barrier(int size, int& phase);
    void wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value);
    void leave_if_failed() const;

    const TeamBody body_;
    std::atomic<int> arrived_{0}, phase_{0};
    std::atomic<bool> failed_{false};
    std::mutex error_mutex_;
    std::exception_ptr error_;
};

// Waits for `ready`: busily at first, as a wake costs more than a short phase; then giving the core away between looks;
// and where that takes long, someone else needs the core (the thread waited for, perhaps), so sleeping between them.
class Patience {
public:
    void wait();

private:
    int looks_ = 0;
};
template <class Ready>
void spin_until(Ready ready) {
    for (Patience patience; !ready();) patience.wait();
}

}  // namespace resnetcore

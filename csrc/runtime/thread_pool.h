// A team of threads that runs one function together: one wake per run, barriers inside it, no allocation.
//
// Invariant: one run at a time in a process; callers from several threads take turns. After fork the child starts
// without workers and makes its own at its next run.
#pragma once

#include <atomic>
#include <cstdint>

namespace resnetcore {

class Pool;

// The threads of one run, as seen by one of them.
class Team {
public:
    Team(Pool& pool, int rank, int size) : pool_(pool), rank_(rank), size_(size) {}
    int rank() const { return rank_; }
    int size() const { return size_; }
    // Returns once every thread of the team has called it; what they wrote before is visible after.
    void barrier();
    // Returns once `counter` is `value`, which another thread of the team will make it.
    void wait_for(const std::atomic<std::int64_t>& counter, std::int64_t value);

private:
    Pool& pool_;
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

// Runs `body` on min(max_threads, get_num_threads()) threads (0: no limit); the caller is rank 0. The first exception
// of any of them is rethrown once all have stopped; threads waiting at a barrier leave it.
void run_on_team(TeamBody body, int max_threads = 0);

// At start: RESNETCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that affinity and cgroup quota leave us.
int get_num_threads();
int threads_of_process();  // without the calling thread's limit
// The calling thread's runs use at most so many from now on; 0: no limit. Returns the limit of before.
int limit_threads(int count);
void set_num_threads(int count);  // throws ValueError below 1 and above 1024
// Where the number came from, in words.
const char* num_threads_origin();

}  // namespace resnetcore

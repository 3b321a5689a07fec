// A team of threads that runs one function together: one wake per run, barriers inside it, no allocation.
//
// Invariant: one run at a time in a process; callers from several threads take turns. After fork the child starts
// without workers and makes its own at its next run.
#pragma once

#include "runtime/team.h"

namespace resnetcore {

// Runs `body` on min(max_threads, get_num_threads()) threads (0: no limit), or fewer where they are a host's or the
// system has no more; the caller is rank 0. The first exception of any of them is rethrown once all have stopped;
// threads waiting at a barrier leave it.
void run_on_team(TeamBody body, int max_threads = 0);

// At start: RESNETCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that affinity and cgroup quota leave us.
int get_num_threads();
int threads_of_process();  // without the calling thread's limit
// From now on the calling thread is a host's, another library's that has called us: its runs use at most so many
// threads, the host's own if an OpenMP of it was adopted (host_team.h). 0: no host. Returns what it was before.
int use_host_threads(int count);
void set_num_threads(int count);  // throws ValueError below 1 and above 1024
// Where the number came from, in words.
const char* num_threads_origin();

}  // namespace resnetcore

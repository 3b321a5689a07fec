// The OpenMP threads of a library that calls us. Between its own operations they spin, on the cores that threads of
// ours would be woken on; a run on them has the cores at once. Nothing here is linked to OpenMP.
//
// Invariant: a team may be smaller than it was asked to be, and has its size only once it runs.
#pragma once

#include <string>

#include "runtime/team.h"

namespace resnetcore {

// From now on hosts' runs are on the OpenMP that this library, named by its soname, is linked to. False, and nothing
// has changed, where the library is not loaded or has none.
bool adopt_openmp_of(const char* library);
// The file of the OpenMP that was adopted; empty where there is none. A forked child has none: OpenMP would wait there
// for its parent's threads.
std::string host_openmp();
// At most `size` threads of a team of `host_threads`, as large as the host's own: OpenMP ends threads that a team has
// no use for, and the host's next operation would have to start them again. The caller is rank 0. False, and nothing
// has run, where there is no OpenMP.
bool run_on_host_team(Run& run, int size, int host_threads);

}  // namespace resnetcore

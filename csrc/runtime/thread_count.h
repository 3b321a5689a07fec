// How many threads this process may reasonably use.
#pragma once

namespace resnetcore {

struct ThreadCount {
    int threads;
    const char* origin;
};

ThreadCount default_thread_count();
void check_thread_count(const char* operation, long count);  // throws ValueError outside 1 … 1024

}  // namespace resnetcore

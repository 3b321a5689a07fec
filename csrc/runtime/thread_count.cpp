#include "runtime/thread_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.h"

namespace resnetcore {
namespace {

int cpus_of_affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    return std::max(CPU_COUNT(&set), 1);
}

// CPUs that the cgroup's quota is worth, rounded up; 0 where there is none. Version 2, then version 1.
int cpus_of_quota() {
    std::string quota;
    double period = 0;
    std::ifstream v2("/sys/fs/cgroup/cpu.max");
    if (!(v2 >> quota >> period)) {
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
    }
    const double limit = std::strtod(quota.c_str(), nullptr);
    return limit > 0 && period > 0 ? static_cast<int>(std::ceil(limit / period)) : 0;
}

// 0 where the variable is not set, or empty; −1 where it is no whole number, which `end_of_first` may follow.
long number_in(const char* variable, char end_of_first = 0) {
    const char* text = std::getenv(variable);
    if (!text || !*text) return 0;
    char* end = nullptr;
    const long number = std::strtol(text, &end, 10);
    return *end && *end != end_of_first ? -1 : number;
}

}  // namespace

void check_thread_count(const char* operation, long count) {
    if (count < 1 || count > 1024)
        throw ValueError(std::string(operation) + ": the number of threads must be from 1 to 1024, got " +
                         std::to_string(count));
}

ThreadCount default_thread_count() {
    const char* given = std::getenv("RESNETCORE_NUM_THREADS");
    if (given && *given) {
        const long wanted = number_in("RESNETCORE_NUM_THREADS");
        if (wanted < 1 || wanted > 1024)
            throw ValueError("RESNETCORE_NUM_THREADS must be a number from 1 to 1024, got \"" + std::string(given) +
                             "\"");
        return {static_cast<int>(wanted), "RESNETCORE_NUM_THREADS"};
    }
    const long openmp = number_in("OMP_NUM_THREADS", ',');  // "4,2": of the outer of nested regions
    if (openmp >= 1 && openmp <= 1024) return {static_cast<int>(openmp), "OMP_NUM_THREADS"};
    const int affinity = cpus_of_affinity(), quota = cpus_of_quota();
    if (quota > 0 && quota < affinity) return {quota, "cgroup quota"};
    return {std::min(affinity, 1024), "CPU affinity"};
}

}  // namespace resnetcore

#include "runtime/host_team.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>

namespace resnetcore {
namespace {

// As GNU's library has it; LLVM's and Intel's have the same for programs of GNU's compiler.
struct OpenMp {
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
    int (*rank)() = nullptr;
    int (*size)() = nullptr;
};

// The handle of its library is never closed.
std::atomic<const OpenMp*> adopted{nullptr};

template <class Function>
bool find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
}

}  // namespace

bool adopt_openmp_of(const char* library) {
    void* handle = dlopen(library, RTLD_NOLOAD | RTLD_LAZY);
    if (!handle) return false;
    static OpenMp found;
    static const int registered = pthread_atfork(nullptr, nullptr, [] { adopted.store(nullptr); });
    if (adopted.load()) return dlclose(handle) == 0;
    const bool whole = registered == 0 && find(handle, "GOMP_parallel", found.parallel) &&
                       find(handle, "omp_get_thread_num", found.rank) &&
                       find(handle, "omp_get_num_threads", found.size);
    if (!whole) return dlclose(handle), false;
    adopted.store(&found);
    return true;
}

std::string host_openmp() {
    const OpenMp* openmp = adopted.load();
    Dl_info info;
    if (!openmp || !dladdr(reinterpret_cast<void*>(openmp->parallel), &info)) return {};
    return info.dli_fname;
}

bool run_on_host_team(Run& run, int size, int host_threads) {
    const OpenMp* openmp = adopted.load();
    if (!openmp) return false;
    struct Call {
        Run& run;
        int size;
        const OpenMp& openmp;
    } call{run, size, *openmp};
    const auto body = [](void* data) {
        const Call& of = *static_cast<Call*>(data);
        const int rank = of.openmp.rank(), there = std::min(of.size, of.openmp.size());
        if (rank < there) of.run.work(rank, there);
    };
    if (size == 1)
        run.work(0, 1);
    else
        openmp->parallel(body, &call, static_cast<unsigned>(host_threads), 0);
    return true;
}

}  // namespace resnetcore

#include "runtime/host_team.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

namespace resnetcore {
namespace {

// As GNU's library has it; LLVM's and Intel's have the same for programs of GNU's compiler.
struct OpenMp {
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
    int (*rank)() = nullptr;
    int (*size)() = nullptr;
};

// Written to before anybody looks: libraries stay loaded, and so an OpenMP in use is never let go of.
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
    if (adopted.load()) return true;
    const bool whole = registered == 0 && find(handle, "GOMP_parallel", found.parallel) &&
                       find(handle, "omp_get_thread_num", found.rank) &&
                       find(handle, "omp_get_num_threads", found.size);
    if (whole) adopted.store(&found);
    return whole;
}

std::string host_openmp() {
    const OpenMp* openmp = adopted.load();
    Dl_info info;
    if (!openmp || !dladdr(reinterpret_cast<void*>(openmp->parallel), &info)) return {};
    return info.dli_fname;
}

bool run_on_host_team(Run& run, int size) {
    const OpenMp* openmp = adopted.load();
    if (!openmp) return false;
    struct Call {
        Run& run;
        const OpenMp& openmp;
    } call{run, *openmp};
    const auto body = [](void* data) {
        const Call& of = *static_cast<Call*>(data);
        of.run.work(of.openmp.rank(), of.openmp.size());
    };
    if (size == 1)
        run.work(0, 1);
    else
        openmp->parallel(body, &call, static_cast<unsigned>(size), 0);
    return true;
}

}  // namespace resnetcore

// What runtime/host_team.cpp asks of an OpenMP, over threads of its own, with as small a team as the test says.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace {

std::atomic<int> most{1024}, asked{0}, regions{0};
thread_local int rank = 0, size = 1;

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
    const int given = std::min(static_cast<int>(threads), most.load());
    asked = static_cast<int>(threads);
    ++regions;
    std::vector<std::thread> others;
    for (int other = 1; other < given; ++other) others.emplace_back([=] { rank = other, size = given, body(data); });
    size = given;
    body(data);
    size = 1;
    for (std::thread& thread : others) thread.join();
}
EXPORTED int omp_get_thread_num() { return rank; }
EXPORTED int omp_get_num_threads() { return size; }

EXPORTED void stand_in_give_at_most(int threads) { most = threads; }
EXPORTED int stand_in_asked() { return asked; }
EXPORTED int stand_in_regions() { return regions; }

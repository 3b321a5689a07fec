// The team, of our threads or of a host's: every rank once, barriers that hold, exceptions that come back, and a fork
// that finds its own workers.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/host_team.h"
#include "runtime/thread_pool.h"
#include "runtime/work_queue.h"

using namespace resnetcore;

extern "C" void stand_in_give_at_most(int threads);
extern "C" int stand_in_asked();  // how many threads, the last time
extern "C" int stand_in_regions();

namespace {

// Every piece once, each owner's in order, and whatever an owner leaves is taken by the others.
void queue_of_pieces(int threads) {
    set_num_threads(threads);
    for (int absent : {-1, 0, threads - 1}) {
        constexpr std::int64_t count = 1001;
        std::vector<std::atomic<int>> taken(count);
        std::atomic<int> out_of_order{0};
        WorkQueue queue;
        queue.reserve(threads);
        queue.reset(count, threads);
        run_on_team([&](Team& team) {
            if (team.rank() == absent && team.size() > 1) return;
            std::vector<std::int64_t> last(threads, -1);
            for (std::int64_t piece; queue.take(team.rank(), piece);) {
                out_of_order += piece <= last[piece % threads];
                last[piece % threads] = piece;
                ++taken[piece];
            }
        });
        for (std::int64_t piece = 0; piece < count; ++piece)
            CHECK(taken[piece] == 1, "piece %d was taken %d times", int(piece), taken[piece].load());
        CHECK(out_of_order == 0, "%d pieces came before an earlier one of their owner", out_of_order.load());
    }
}

// `present`: how many of those asked for there are.
void ranks_and_barriers(int threads, int present) {
    set_num_threads(threads);
    for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<std::atomic<int>> seen(threads);
        std::atomic<int> before{0};
        bool held = true;
        run_on_team([&](Team& team) {
            seen[team.rank()].fetch_add(1);
            for (int phase = 1; phase <= 5; ++phase) {
                before.fetch_add(1);
                team.barrier();
                if (team.rank() == 0 && before.load() != phase * team.size()) held = false;
                team.barrier();
            }
        });
        for (int rank = 0; rank < threads; ++rank)
            CHECK(seen[rank] == (rank < present), "rank %d of %d ran %d times", rank, present, seen[rank].load());
        CHECK(held, "a barrier of %d threads let one through", threads);
    }
}

void exceptions(int threads, int present) {
    set_num_threads(threads);
    bool caught = false;
    try {
        run_on_team([&](Team& team) {
            if (team.rank() == team.size() - 1) throw std::runtime_error("planted");
            team.barrier();
        });
    } catch (const std::runtime_error&) {
        caught = true;
    }
    CHECK(caught, "an exception of %d threads was lost", threads);
    ranks_and_barriers(threads, present);
}

void forked() {
    set_num_threads(2);
    run_on_team([](Team& team) { team.barrier(); });
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        std::atomic<int> ran{0};
        run_on_team([&](Team& team) { ran.fetch_add(1), team.barrier(); });
        _exit(ran == 2 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the forked child ended with %d", status);
}

void several_callers() {
    set_num_threads(3);
    std::atomic<int> ran{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 50; ++repeat)
                run_on_team([&](Team& team) { ran.fetch_add(1), team.barrier(); });
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(ran == 4 * 50 * 3, "%d bodies ran", ran.load());
}

// A host's threads: all that were asked for, some of them, or the caller alone; ours in a child, and without a host.
void on_a_host() {
    CHECK(!adopt_openmp_of("libnobody.so") && host_openmp().empty(), "an OpenMP that is not there was adopted");
    CHECK(use_host_threads(3) == 0, "a host before there was one");
    ranks_and_barriers(3, 3);  // without an OpenMP, of ours
    CHECK(stand_in_regions() == 0, "the stand-in ran unasked");
    CHECK(adopt_openmp_of("libopenmp_stand_in.so"), "the stand-in was not adopted");
    CHECK(host_openmp().find("libopenmp_stand_in") != std::string::npos, "adopted is %s", host_openmp().c_str());
    for (int given = 3; given >= 1; --given) {
        stand_in_give_at_most(given);
        const int before = stand_in_regions();
        ranks_and_barriers(3, given);
        exceptions(3, given);
        queue_of_pieces(3);
        CHECK(stand_in_regions() == before + 200 + 201 + 3, "%d regions", stand_in_regions() - before);
    }
    stand_in_give_at_most(1024);
    use_host_threads(5);
    ranks_and_barriers(2, 2);
    CHECK(stand_in_asked() == 5, "a team of %d would end threads of the host's", stand_in_asked());
    stand_in_give_at_most(2);
    const int before = stand_in_regions();
    use_host_threads(2);
    ranks_and_barriers(4, 2);
    CHECK(stand_in_regions() == before + 200, "a host's limit was not kept");
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        use_host_threads(4);
        ranks_and_barriers(4, 4);
        _exit(summary("a child") != 0 || stand_in_regions() != before + 200 || !host_openmp().empty());
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child of a host ended with %d", status);
    CHECK(use_host_threads(0) == 2, "the host was forgotten");
    ranks_and_barriers(3, 3);
    CHECK(stand_in_regions() == before + 200, "the stand-in ran without a host");
}

}  // namespace

int main() {
    for (int threads = 1; threads <= 4; ++threads) {
        queue_of_pieces(threads);
        ranks_and_barriers(threads, threads);
        exceptions(threads, threads);
    }
    forked();
    several_callers();
    on_a_host();
    return summary("threads");
}

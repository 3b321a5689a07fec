// The team: every rank once, barriers that hold, exceptions that come back, and a fork that finds its own workers.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/thread_pool.h"
#include "runtime/work_queue.h"

using namespace resnetcore;

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
            if (team.rank() == absent && threads > 1) return;
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

void ranks_and_barriers(int threads) {
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
            CHECK(seen[rank] == 1, "rank %d of %d ran %d times", rank, threads, seen[rank].load());
        CHECK(held, "a barrier of %d threads let one through", threads);
    }
}

void exceptions(int threads) {
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
    ranks_and_barriers(threads);
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

}  // namespace

int main() {
    for (int threads = 1; threads <= 4; ++threads) {
        queue_of_pieces(threads);
        ranks_and_barriers(threads);
        exceptions(threads);
    }
    forked();
    several_callers();
    return summary("threads");
}

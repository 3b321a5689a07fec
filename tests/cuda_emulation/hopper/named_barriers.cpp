#include "named_barriers.h"

#include <string>

#include "block.h"
#include "knowledge.h"

namespace emulation {
namespace hopper {
namespace {

struct NamedBarrier {
    int threads = 0, arrived = 0;
    unsigned turn = 0;
    Clock gathered, known;
};
constexpr std::uint32_t count = 16;
thread_local NamedBarrier barriers[count];

}  // namespace

void begin_named_barriers() {
    for (NamedBarrier& one : barriers) one = {};
}

void meet(std::uint32_t number, int threads) {
    wait_for_warp("barrier.sync", &number, sizeof number, nullptr);
    if (number == 0 || number >= count || threads % warp_size != 0)
        fail("thread %d: barrier %u of %d threads", thread_index(), number, threads);
    NamedBarrier& one = barriers[number];
    if (one.arrived == 0) one.threads = threads;
    if (one.threads != threads) fail("thread %d: barrier %u is one of %d threads", thread_index(), number, one.threads);
    knowledge().tell(thread_index(), one.gathered);
    const unsigned turn = one.turn;
    if (++one.arrived == threads) {
        one.arrived = 0;
        ++one.turn;
        one.known = std::move(one.gathered);
        one.gathered.clear();
    } else {
        wait_until([number] { return "barrier.sync " + std::to_string(number); },
                   [&one, turn] { return one.turn != turn; });
    }
    knowledge().learn(thread_index(), one.known);
}

}  // namespace hopper
}  // namespace emulation

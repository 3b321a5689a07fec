#include "barriers.h"

#include <map>
#include <string>

#include "block.h"
#include "shared_memory.h"

namespace emulation {
namespace hopper {
namespace {

struct Barrier {
    int index = 0;
    int arrivals = 0, pending = 0;
    std::int64_t bytes = 0;
    std::uint32_t phase = 0;  // those before it are complete
    Clock gathered, completed;
    Moment made;
    bool fenced = false;
};
thread_local std::map<std::uint32_t, Barrier> barriers;

constexpr unsigned most_arrivals = (1u << 20) - 1;
constexpr std::int64_t most_bytes = (1 << 20) - 1;

Barrier& at(std::uint32_t address) {
    const auto found = barriers.find(address);
    if (found == barriers.end()) fail("thread %d: there is no barrier at shared address %u", thread_index(), address);
    return found->second;
}
Barrier& known(std::uint32_t address) {
    Barrier& barrier = at(address);
    if (!knowledge().knows(thread_index(), barrier.made))
        fail("thread %d: the barrier at shared address %u was made, and that not waited for", thread_index(), address);
    return barrier;
}

void complete_if_due(Barrier& barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    ++barrier.phase;
    barrier.pending = barrier.arrivals;
    barrier.completed = std::move(barrier.gathered);
    barrier.gathered.clear();
    barrier.completed.resize(static_cast<std::size_t>(knowledge().threads() + most_barriers));
    barrier.completed[static_cast<std::size_t>(knowledge().barrier(barrier.index))] = barrier.phase;
}

}  // namespace

void begin_barriers() { barriers.clear(); }

void end_barriers() {
    for (const auto& [address, barrier] : barriers)
        if (barrier.bytes != 0)
            fail("the block has ended, and the barrier at shared address %u expects %lld bytes", address,
                 static_cast<long long>(barrier.bytes));
}

void barrier_init(std::uint32_t address, unsigned arrivals) {
    if (address % 8 != 0) fail("a barrier at shared address %u, which is no multiple of 8", address);
    if (arrivals < 1 || arrivals > most_arrivals) fail("a barrier of %u arrivals", arrivals);
    if (barriers.count(address)) fail("a barrier at shared address %u, where there is one", address);
    if (barriers.size() == most_barriers) fail("more than %d barriers", most_barriers);
    check_store(address, 8);
    Barrier& barrier = barriers[address];
    barrier.index = static_cast<int>(barriers.size()) - 1;
    barrier.arrivals = barrier.pending = static_cast<int>(arrivals);
    barrier.made = knowledge().now(thread_index());
}

void fence_barrier_init() {
    for (auto& [address, barrier] : barriers)
        if (barrier.made.who == thread_index()) barrier.fenced = true;
}

void barrier_arrive(std::uint32_t address, std::uint32_t expected_bytes) {
    Barrier& barrier = known(address);
    if (barrier.pending == 0)
        fail("thread %d: one arrival too many at the barrier at shared address %u", thread_index(), address);
    barrier.bytes += expected_bytes;
    if (barrier.bytes > most_bytes) fail("the barrier at shared address %u expects too many bytes", address);
    knowledge().tell(thread_index(), barrier.gathered);
    --barrier.pending;
    complete_if_due(barrier);
}

void barrier_wait(std::uint32_t address, unsigned parity) {
    Barrier& barrier = known(address);
    if (parity > 1) fail("thread %d: a parity of %u", thread_index(), parity);
    if ((barrier.phase & 1) == parity)
        wait_until(
            [address, parity] {
                return "mbarrier.try_wait at shared address " + std::to_string(address) + " for a phase of parity " +
                       std::to_string(parity);
            },
            [&barrier, parity] { return (barrier.phase & 1) != parity; });
    knowledge().learn(thread_index(), barrier.completed);
}

Moment completion(std::uint32_t address) {
    Barrier& barrier = known(address);
    if (!barrier.fenced)
        fail("a copy is to complete on the barrier at shared address %u, which was made without a fence", address);
    return {knowledge().barrier(barrier.index), barrier.phase + 1};
}

void complete_bytes(std::uint32_t address, std::uint32_t bytes) {
    Barrier& barrier = at(address);
    barrier.bytes -= bytes;
    if (barrier.bytes < 0)
        fail("%lld bytes arrive that the barrier at shared address %u does not expect",
             static_cast<long long>(-barrier.bytes), address);
    complete_if_due(barrier);
}

}  // namespace hopper
}  // namespace emulation

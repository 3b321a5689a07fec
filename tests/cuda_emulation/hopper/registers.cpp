#include "registers.h"

#include <vector>

#include "block.h"

namespace emulation {
namespace hopper {
namespace {

constexpr int all_registers = 65536;
thread_local std::vector<int> of_thread;  // for each warp
thread_local int left;

}  // namespace

// What `__launch_bounds__(threads, 1)` gives a thread, in steps of 8.
void begin_registers(int threads) {
    const int each = all_registers / threads / 8 * 8;
    of_thread.assign(static_cast<std::size_t>(threads / warp_size), each < 255 ? each : 255);
    left = 0;
}

void set_registers(int count, bool more) {
    wait_for_warp("setmaxnreg", &count, sizeof count, nullptr);
    if (count < 24 || count > 256 || count % 8 != 0) fail("setmaxnreg to %d", count);
    int& mine = of_thread[static_cast<std::size_t>(thread_index() / warp_size)];
    if (lane() == 0) {
        if (more ? count < mine : count > mine)
            fail("thread %d: setmaxnreg from %d to %d", thread_index(), mine, count);
        const int wanted = (count - mine) * warp_size;
        if (wanted > left) wait_until([] { return std::string("setmaxnreg"); }, [wanted] { return wanted <= left; });
        left -= wanted;
        mine = count;
    }
    wait_for_warp("setmaxnreg", &count, sizeof count, nullptr);
}

}  // namespace hopper
}  // namespace emulation

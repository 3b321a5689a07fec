#undef _FORTIFY_SOURCE  // longjmp from one stack to another is what fibers are

#include "block.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "block_state.h"
#include "cuda_runtime.h"
#include "grid.h"
#include "hopper/copies.h"

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

// A stack that ends at a page without access.
class Stack {
public:
    Stack() : memory_(mmap(nullptr, size + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
        if (memory_ == MAP_FAILED) std::abort();
        mprotect(memory_, page(), PROT_NONE);
    }
    ~Stack() { munmap(memory_, size + page()); }
    Stack(const Stack&) = delete;
    void* data() const { return static_cast<char*>(memory_) + page(); }
    static constexpr std::size_t size = 128 << 10;

private:
    static std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
    void* memory_;
};

enum class Waits { no, for_block, for_warp, for_event, for_nothing_more };

struct Fiber {
    Stack stack;
    jmp_buf context;
    bool started = false;
    Waits waits = Waits::no;
    const char* operation = "";
    std::function<std::string()> event;
    std::function<bool()> ready;
    // What a lane gave lives until the operation after the next: others may read it while this one goes on.
    unsigned char given[2][exchanged];
    int turn = 0;
    bool finished[2] = {false, false};  // of a warp's first lane
};

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    int size = 0, current = 0;
    jmp_buf scheduler;
    const std::function<void()>* thread = nullptr;
    bool backwards = false;
    Grid* grid = nullptr;  // where blocks may wait for each other
    int idle = 0;          // how often the others' turns have passed since one of its threads could go on

    Fiber& fiber() { return *fibers[current]; }
    int first_lane() const { return current / warp_size * warp_size; }
};
thread_local Block block;

void give_way(Waits waits, const char* operation) {
    Fiber& fiber = block.fiber();
    fiber.waits = waits;
    fiber.operation = operation;
    if (_setjmp(fiber.context) == 0) _longjmp(block.scheduler, 1);
}

// A fiber that has ended is a thread of the next block.
void fiber_main() {
    for (;;) {
        (*block.thread)();
        give_way(Waits::for_nothing_more, "");
    }
}

// Runs a fiber until it waits. The very first time through a context that knows its stack, later by jumps: those do not
// ask the operating system for anything.
void resume(int index) {
    block.current = index;
    threadIdx = dim3(static_cast<unsigned>(index), 0, 0);
    block.fiber().waits = Waits::no;
    if (_setjmp(block.scheduler) != 0) return;
    Fiber& fiber = block.fiber();
    if (fiber.started) _longjmp(fiber.context, 1);
    fiber.started = true;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = fiber.stack.data();
    start.uc_stack.ss_size = Stack::size;
    start.uc_link = nullptr;
    makecontext(&start, fiber_main, 0);
    setcontext(&start);
}

int count(int begin, int end, Waits waits) {
    int n = 0;
    for (int i = begin; i < end; ++i) n += block.fibers[i]->waits == waits;
    return n;
}

bool can_go_on(Fiber& fiber) { return fiber.waits == Waits::no || (fiber.waits == Waits::for_event && fiber.ready()); }

// Until no lane of a warp can go on. Whether any could.
bool run_warp(int begin, int end) {
    bool any = false;
    for (bool together = true; together;) {
        for (int i = begin; i < end; ++i) {
            const int index = block.backwards ? end - 1 - (i - begin) : i;
            if (!can_go_on(*block.fibers[index])) continue;
            resume(index);
            any = true;
        }
        const int waiting = count(begin, end, Waits::for_warp);
        if (waiting != 0 && waiting + count(begin, end, Waits::for_event) != end - begin)
            fail("some lanes of a warp wait for it, others do not");
        for (int i = begin + 1; waiting == end - begin && i < end; ++i)
            if (std::strcmp(block.fibers[i]->operation, block.fibers[begin]->operation) != 0)
                fail("lanes of a warp wait in different operations");
        together = waiting == end - begin;
        for (int i = begin; together && i < end; ++i) block.fibers[i]->waits = Waits::no;
    }
    return any;
}

// Nothing moves any more: why.
[[noreturn]] void fail_stuck() {
    const int ended = count(0, block.size, Waits::for_nothing_more);
    if (count(0, block.size, Waits::for_block) + ended == block.size)
        fail("some threads wait at a barrier, others have ended");
    for (int i = 0; i < block.size; ++i) {
        const Fiber& fiber = *block.fibers[i];
        if (fiber.waits == Waits::for_event) fail("nothing goes on: thread %d waits in %s", i, fiber.event().c_str());
    }
    fail("nothing goes on: threads wait for each other");
}

void run_block() {
    for (int i = 0; i < block.size; ++i) block.fibers[i]->turn = 0, block.fibers[i]->waits = Waits::no;
    const int warps = (block.size + warp_size - 1) / warp_size;
    for (;;) {
        bool any = false;
        for (int i = 0; i < warps; ++i) {
            const int begin = (block.backwards ? warps - 1 - i : i) * warp_size;
            any |= run_warp(begin, begin + warp_size < block.size ? begin + warp_size : block.size);
        }
        if (count(0, block.size, Waits::for_nothing_more) == block.size) return;
        if (count(0, block.size, Waits::for_block) == block.size) {
            threads_met(0, block.size);
            for (int i = 0; i < block.size; ++i) block.fibers[i]->waits = Waits::no;
        } else if (any) {
            block.idle = 0;
        } else if (!hopper::finish_a_copy() && !(block.grid && block.grid->let_others_go_on(block.idle))) {
            fail_stuck();
        }
    }
}

void finish_fragments() {
    double a[16][16], b[16][8], c[16][8] = {};
    auto as_float = [](std::uint32_t word, int half) {
        const std::uint32_t bits = half ? word & 0xffff0000u : word << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    };
    for (int lane = 0; lane < warp_size; ++lane) {
        std::uint32_t words[6];
        std::memcpy(words, taken_from_lane(lane), sizeof words);
        const int group = lane / 4, in_group = lane % 4;
        for (int half = 0; half < 2; ++half) {
            for (int i = 0; i < 4; ++i)
                a[group + 8 * (i % 2)][2 * in_group + half + 8 * (i / 2)] = as_float(words[i], half);
            for (int i = 0; i < 2; ++i) b[2 * in_group + half + 8 * i][group] = as_float(words[4 + i], half);
        }
    }
    for (int i = 0; i < 16; ++i)
        for (int k = 0; k < 16; ++k)
            for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < warp_size; ++lane) {
        const int group = lane / 4, in_group = lane % 4;
        double mine[4];
        for (int i = 0; i < 4; ++i) mine[i] = c[group + 8 * (i / 2)][2 * in_group + i % 2];
        std::memcpy(taken_from_lane(lane), mine, sizeof mine);
    }
}

}  // namespace

void fail(const char* format, ...) {
    std::fprintf(stderr, "CUDA emulation: block (%u, %u): ", blockIdx.x, blockIdx.y);
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::abort();
}

int thread_index() { return block.current; }
int lane() { return block.current % warp_size; }
bool turned_round() { return block.backwards; }

void wait_for_block() { give_way(Waits::for_block, "__syncthreads"); }

void wait_until(std::function<std::string()> operation, std::function<bool()> ready) {
    if (ready()) return;
    block.fiber().event = std::move(operation);
    block.fiber().ready = std::move(ready);
    give_way(Waits::for_event, "");
}

void wait_for_warp(const char* operation, const void* given, std::size_t bytes, void (*finish)()) {
    Fiber& fiber = block.fiber();
    fiber.turn = 1 - fiber.turn;
    std::memcpy(fiber.given[fiber.turn], given, bytes);
    Fiber& first = *block.fibers[block.first_lane()];
    first.finished[fiber.turn] = false;
    give_way(Waits::for_warp, operation);
    if (finish && !first.finished[fiber.turn]) finish();
    first.finished[fiber.turn] = true;
}

void* taken_from_lane(int lane) {
    if (block.first_lane() + lane >= block.size) fail("a lane reads from one that does not exist");
    return block.fibers[block.first_lane() + lane]->given[block.fiber().turn];
}

void multiply_fragments(float* c, const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    const std::uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    wait_for_warp("mma.m16n8k16", words, sizeof words, finish_fragments);
    double product[4];
    std::memcpy(product, taken_from_lane(lane()), sizeof product);
    for (int i = 0; i < 4; ++i) c[i] = towards_zero(static_cast<double>(c[i]) + product[i]);
}

namespace {

void begin_grid(dim3 grid, dim3 size, const std::function<void()>& thread, bool backwards) {
    block.size = static_cast<int>(size.x * size.y * size.z);
    while (static_cast<int>(block.fibers.size()) < block.size) block.fibers.push_back(std::make_unique<Fiber>());
    block.thread = &thread;
    block.backwards = backwards;
    gridDim = grid, blockDim = size;
}
void run_block_of_grid(std::uint64_t at, std::size_t shared_bytes) {
    const std::uint64_t plane = std::uint64_t{gridDim.x} * gridDim.y;
    blockIdx = dim3(static_cast<unsigned>(at % gridDim.x), static_cast<unsigned>(at % plane / gridDim.x),
                    static_cast<unsigned>(at / plane));
    begin_block(block.size, shared_bytes);
    run_block();
    end_block();
}

}  // namespace

void run_grid(dim3 grid, dim3 size, std::size_t shared_bytes, const std::function<void()>& thread) {
    begin_grid(grid, size, thread, !block.backwards);
    for (std::uint64_t at = 0; at < std::uint64_t{grid.x} * grid.y * grid.z; ++at) run_block_of_grid(at, shared_bytes);
}

void run_grid_together(dim3 grid, dim3 size, std::size_t shared_bytes, const std::function<void()>& thread) {
    block.backwards = !block.backwards;
    Grid blocks(static_cast<int>(grid.x * grid.y * grid.z), block.backwards);
    blocks.run([&, backwards = block.backwards](int at) {
        begin_grid(grid, size, thread, backwards);
        block.grid = &blocks;
        run_block_of_grid(static_cast<std::uint64_t>(at), shared_bytes);
    });
}

void wait_for_blocks(std::function<bool()> ready) {
    if (!block.grid) fail("blocks wait for each other that need not be there at a time");
    int idle = 0;
    block.grid->let_others_go_on(idle);
    wait_until([] { return std::string("wait_for_blocks"); }, std::move(ready));
}

}  // namespace emulation

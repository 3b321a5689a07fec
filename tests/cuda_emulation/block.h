// A block of threads on one host thread: every thread is a fiber, which runs until it waits for the others.
//
// Invariant: a fiber gives way at barriers and warp operations alone, and where it waits for an event. So what a kernel
// does between two of them is done by one thread after another, and data that misses a barrier is read too early or too
// late every time. The order turns round from launch to launch.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "cuda_runtime_api.h"

namespace emulation {

constexpr int warp_size = 32;
constexpr std::size_t exchanged = 32;  // bytes that a lane gives to its warp, or takes

// Runs `thread` for every thread of every block, which has `shared_bytes` of dynamic shared memory. Ends the process
// with a message where threads of a block wait for different things, or end while others wait: on a GPU that is
// undefined, or never ends.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread);
// The same of blocks that may wait for each other: each goes on until all of its threads wait, and then another does.
void run_grid_together(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread);

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Called by fibers.
int thread_index();
int lane();
bool turned_round();  // whether this launch goes backwards
void wait_for_block();
// Likewise, for what other blocks do, which go on at once: what this block's other threads have still to do is not done
// when they do theirs.
void wait_for_blocks(std::function<bool()> ready);
// Until `ready`, which is asked whenever others have gone on. `operation` names it for a message.
void wait_until(std::function<std::string()> operation, std::function<bool()> ready);
// Gives `bytes` to the warp and waits for all its lanes, which must call this for the same operation. The first lane
// that goes on calls `finish`, which may change what the lanes gave.
void wait_for_warp(const char* operation, const void* given, std::size_t bytes, void (*finish)());
void* taken_from_lane(int lane);

// The nearest float that is not larger in magnitude: matrix units cut off what does not fit.
inline float towards_zero(double x) {
    float rounded = static_cast<float>(x);
    if (std::fabs(static_cast<double>(rounded)) > std::fabs(x)) {  // then the one before it, which has the bits before
        std::uint32_t bits;
        std::memcpy(&bits, &rounded, sizeof bits);
        --bits;
        std::memcpy(&rounded, &bits, sizeof bits);
    }
    return rounded;
}

// c += a·b by a warp: mma.m16n8k16 on bfloat16, with the fragments of PTX. Products and their sum are
// exact, and what they are added to is cut off after a float's bits, as matrix units do.
void multiply_fragments(float* c, const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);

}  // namespace emulation

#include "block_state.h"

#include <atomic>

#include "ampere/copies.h"
#include "block.h"
#include "hopper/barriers.h"
#include "hopper/copies.h"
#include "hopper/named_barriers.h"
#include "hopper/products.h"
#include "hopper/registers.h"
#include "knowledge.h"
#include "shared_memory.h"

namespace emulation {
namespace {

thread_local bool exists = false;
std::atomic<long> blocks{0}, bytes_of_last{0};

}  // namespace

void begin_block(int threads, std::size_t shared_bytes) {
    exists = shared_bytes != 0;
    if (!exists) return;
    ++blocks;
    bytes_of_last = static_cast<long>(shared_bytes);
    knowledge().begin(threads);
    begin_shared_memory(shared_bytes);
    hopper::begin_barriers();
    hopper::begin_named_barriers();
    hopper::begin_copies();
    ampere::begin_block(threads);
    hopper::begin_products(threads);
    hopper::begin_registers(threads);
}

void end_block() {
    if (!exists) return;
    hopper::end_copies();
    ampere::end_block();
    hopper::end_barriers();
    hopper::end_products();
}

void threads_met(int begin, int end) {
    if (exists) knowledge().meet(begin, end);
}

}  // namespace emulation

// For tests that ask which path was taken.
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_shared_blocks() { return emulation::blocks; }
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_shared_bytes() {
    return emulation::bytes_of_last;
}

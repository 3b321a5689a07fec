#include "block_state.h"

#include <atomic>

#include "ampere/copies.h"
#include "barriers.h"
#include "block.h"
#include "copies.h"
#include "knowledge.h"
#include "named_barriers.h"
#include "products.h"
#include "registers.h"
#include "shared_memory.h"

namespace emulation {
namespace hopper {
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
    begin_barriers();
    begin_named_barriers();
    begin_copies();
    ampere::begin_block(threads);
    begin_products(threads);
    begin_registers(threads);
}

void end_block() {
    if (!exists) return;
    end_copies();
    ampere::end_block();
    end_barriers();
    end_products();
}

void threads_met(int begin, int end) {
    if (exists) knowledge().meet(begin, end);
}

}  // namespace hopper
}  // namespace emulation

// For tests that ask which path was taken.
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_shared_blocks() {
    return emulation::hopper::blocks;
}
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_shared_bytes() {
    return emulation::hopper::bytes_of_last;
}

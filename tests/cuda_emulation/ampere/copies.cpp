#include "ampere/copies.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <vector>

#include "block.h"
#include "shared_memory.h"

namespace emulation {
namespace ampere {
namespace {

constexpr int place_bytes = 16, words = 4, matrix_rows = 8;

struct Copy {
    std::uint32_t to;
    const void* from;
    int bytes;
};
using Group = std::vector<Copy>;
struct Copies {
    Group open;  // not yet committed
    std::deque<Group> groups;
};
thread_local std::vector<Copies> copies;  // of each thread of the block
std::atomic<long> places{0};

Copies& mine() { return copies[static_cast<std::size_t>(thread_index())]; }

}  // namespace

void begin_block(int threads) { copies.resize(static_cast<std::size_t>(threads)); }

void end_block() {
    for (const Copies& of : copies) {
        if (!of.open.empty()) fail("a block ends with copies that were never committed");
        for (const Group& group : of.groups)
            if (!group.empty()) fail("a block ends with copies that nobody has waited for");
    }
    copies.clear();
}

void copy_place(std::uint32_t to, const void* from, int bytes) {
    if (bytes < 0 || bytes > place_bytes) fail("thread %d: a copy of %d bytes", thread_index(), bytes);
    if (to % place_bytes != 0) fail("thread %d: a copy to shared address %u", thread_index(), to);
    if (reinterpret_cast<std::uintptr_t>(from) % place_bytes != 0)
        fail("thread %d: a copy from where no 16 bytes begin", thread_index());
    check_async_store(to, place_bytes);
    ++places;
    mine().open.push_back({to, from, bytes});
}

void commit_copies() {
    mine().groups.push_back(std::move(mine().open));
    mine().open.clear();
}

void wait_for_copies(int but_the_last) {
    std::deque<Group>& groups = mine().groups;
    while (groups.size() > static_cast<std::size_t>(but_the_last)) {
        for (const Copy& copy : groups.front()) {
            unsigned char* const to = shared_data(copy.to);
            std::memset(to, 0, place_bytes);
            if (copy.bytes > 0) std::memcpy(to, copy.from, static_cast<std::size_t>(copy.bytes));
            finish_async_store(copy.to, place_bytes);
        }
        groups.pop_front();
    }
}

void load_matrices(std::uint32_t row, std::uint32_t (&x)[4], bool transposed) {
    if (row % place_bytes != 0) fail("thread %d: a matrix' row at shared address %u", thread_index(), row);
    wait_for_warp(transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof row, nullptr);
    const auto number = [](int matrix, int i, int j) {
        std::uint32_t at;
        std::memcpy(&at, taken_from_lane(matrix * matrix_rows + i), sizeof at);
        at += 2 * static_cast<std::uint32_t>(j);
        check_load(at, sizeof(std::uint16_t));
        std::uint16_t bits;
        std::memcpy(&bits, shared_data(at), sizeof bits);
        return bits;
    };
    const int i = lane() / 4, j = 2 * (lane() % 4);
    for (int m = 0; m < words; ++m) {
        const std::uint32_t first = transposed ? number(m, j, i) : number(m, i, j),
                            second = transposed ? number(m, j + 1, i) : number(m, i, j + 1);
        x[m] = second << 16 | first;
    }
}

}  // namespace ampere
}  // namespace emulation

// For tests that ask which path was taken.
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_copied_places() {
    return emulation::ampere::places;
}

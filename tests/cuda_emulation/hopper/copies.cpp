#include "copies.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "barriers.h"
#include "block.h"
#include "block_state.h"
#include "shared_memory.h"
#include "tensor_map.h"

namespace emulation {
namespace hopper {
namespace {

struct Copy {
    std::uint32_t shared;
    TensorMap map;
    std::int32_t at[most_dimensions];
    std::uint32_t barrier;
};
thread_local std::vector<Copy> on_their_way;

// Of the other way round: who asked for it, and what it has yet to write.
struct Store {
    int thread;
    std::uint32_t from;
    std::size_t bytes;
    bool committed = false;
};
struct Element {
    unsigned char* to;
    std::uint16_t bits;
};
thread_local std::vector<Store> not_waited_for;
thread_local std::vector<Element> not_written;
std::atomic<long> stores{0};

// Where the bytes of a box lie: PTX ISA, "Tensor swizzling modes". Of 16 bytes at a time, within eight rows of 128.
std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

Copy checked_copy(std::uint32_t shared, const CUtensorMap* map, const std::int32_t* coordinates, int rank,
                  std::uint32_t barrier) {
    Copy copy{shared, tensor_map(*map), {}, barrier};
    if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0) fail("a tensor map that is not aligned to 64 bytes");
    if (copy.map.rank != rank) fail("a copy of %d dimensions from a tensor of %d", rank, copy.map.rank);
    // PTX ISA: 128 bytes; a swizzled box is only where products look for it if its pattern begins with it.
    const std::uint32_t boundary = copy.map.swizzled ? 1024 : 128;
    if (shared % boundary != 0)
        fail("thread %d: a copy at shared address %u, which is no multiple of %u", thread_index(), shared, boundary);
    for (int d = 0; d < rank; ++d) copy.at[d] = coordinates[d];
    return copy;
}

// visit(its place in shared memory, that in the tensor or null where the tensor has none), for one row of the box.
template <class Visit>
void visit_row(const Copy& copy, const std::int64_t (&first)[most_dimensions], std::uint32_t offset, Visit visit) {
    const TensorMap& map = copy.map;
    bool inside = true;
    unsigned char* row = map.address;
    for (int d = 1; d < map.rank; ++d) {
        inside = inside && first[d] >= 0 && first[d] < map.size[d];
        row += first[d] * map.stride[d];
    }
    for (std::int64_t i = 0; i < map.box[0]; ++i) {
        const std::int64_t at = first[0] + i;
        const std::uint32_t place = copy.shared + offset + static_cast<std::uint32_t>(i * map.element);
        visit(shared_data(map.swizzled ? swizzled(place) : place),
              inside && at >= 0 && at < map.size[0] ? row + at * map.element : nullptr);
    }
}

template <class Visit>
void visit_elements(const Copy& copy, Visit visit) {
    const TensorMap& map = copy.map;
    const std::uint32_t row_bytes = static_cast<std::uint32_t>(map.box[0] * map.element);
    std::uint32_t offset = 0;
    std::int64_t at[most_dimensions] = {};
    const std::int64_t rows = box_bytes(map) / row_bytes;
    for (std::int64_t row = 0; row < rows; ++row, offset += row_bytes) {
        std::int64_t rest = row;
        at[0] = copy.at[0];
        for (int d = 1; d < map.rank; ++d) at[d] = copy.at[d] + rest % map.box[d], rest /= map.box[d];
        visit_row(copy, at, offset, visit);
    }
}

void finish(const Copy& copy) {
    const std::size_t element = copy.map.element;
    visit_elements(copy, [element](unsigned char* shared, const unsigned char* global) {
        if (global)
            std::memcpy(shared, global, element);
        else
            std::memset(shared, 0, element);
    });
    arrive(copy.shared, static_cast<std::size_t>(box_bytes(copy.map)));
    complete_bytes(copy.barrier, static_cast<std::uint32_t>(box_bytes(copy.map)));
}

void write_elements() {
    for (const Element& one : not_written) std::memcpy(one.to, &one.bits, sizeof one.bits);
    not_written.clear();
}

}  // namespace

void begin_copies() {
    on_their_way.clear();
    not_waited_for.clear();
    not_written.clear();
}
void end_copies() {
    if (!on_their_way.empty()) fail("the block has ended, and %zu copies are on their way", on_their_way.size());
    if (!not_waited_for.empty())
        fail("the block has ended, and %zu copies still read its shared memory", not_waited_for.size());
    write_elements();
}

void copy_box(std::uint32_t to, const CUtensorMap* map, const std::int32_t* coordinates, int rank,
              std::uint32_t barrier) {
    const Copy copy = checked_copy(to, map, coordinates, rank, barrier);
    check_arrival(to, static_cast<std::size_t>(box_bytes(copy.map)), completion(barrier));
    if (turned_round())
        finish(copy);
    else
        on_their_way.push_back(copy);
}

void store_box(const CUtensorMap* map, const std::int32_t* coordinates, int rank, std::uint32_t from) {
    const Copy copy = checked_copy(from, map, coordinates, rank, 0);
    const auto bytes = static_cast<std::size_t>(box_bytes(copy.map));
    check_departure(from, bytes);
    not_waited_for.push_back({thread_index(), from, bytes});
    ++stores;
    visit_elements(copy, [](const unsigned char* shared, unsigned char* global) {
        std::uint16_t bits;
        std::memcpy(&bits, shared, sizeof bits);
        if (global) not_written.push_back({global, bits});
    });
    if (turned_round()) write_elements();
}

void commit_boxes() {
    for (Store& one : not_waited_for) one.committed |= one.thread == thread_index();
}

void wait_until_boxes_are_read() {
    std::vector<Store> still;
    for (const Store& one : not_waited_for)
        if (one.committed && one.thread == thread_index())
            depart(one.from, one.bytes);
        else
            still.push_back(one);
    not_waited_for = std::move(still);
}

// The last one first.
bool finish_a_copy() {
    if (on_their_way.empty()) return false;
    const Copy last = on_their_way.back();
    on_their_way.pop_back();
    finish(last);
    return true;
}

}  // namespace hopper
}  // namespace emulation

// For tests that ask which kernel ran.
extern "C" __attribute__((visibility("default"))) long resnetcore_emulated_boxes_stored() {
    return emulation::hopper::stores;
}

#include "copies.h"

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
    std::uint32_t to;
    TensorMap map;
    std::int32_t at[most_dimensions];
    std::uint32_t barrier;
};
thread_local std::vector<Copy> on_their_way;

// Where the bytes of a box lie: PTX ISA, "Tensor swizzling modes". Of 16 bytes at a time, within eight rows of 128.
std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

// The elements of one row of the box, or zeros where the tensor has none.
void copy_row(const Copy& copy, const std::int64_t (&first)[most_dimensions], std::uint32_t offset) {
    const TensorMap& map = copy.map;
    bool inside = true;
    const unsigned char* row = map.address;
    for (int d = 1; d < map.rank; ++d) {
        inside = inside && first[d] >= 0 && first[d] < map.size[d];
        row += first[d] * map.stride[d];
    }
    for (std::int64_t i = 0; i < map.box[0]; ++i) {
        const std::int64_t at = first[0] + i;
        const std::uint32_t to = copy.to + offset + static_cast<std::uint32_t>(i * map.element);
        unsigned char* place = shared_data(map.swizzled ? swizzled(to) : to);
        if (inside && at >= 0 && at < map.size[0])
            std::memcpy(place, row + at * map.element, static_cast<std::size_t>(map.element));
        else
            std::memset(place, 0, static_cast<std::size_t>(map.element));
    }
}

void finish(const Copy& copy) {
    const TensorMap& map = copy.map;
    const std::uint32_t row_bytes = static_cast<std::uint32_t>(map.box[0] * map.element);
    std::uint32_t offset = 0;
    std::int64_t at[most_dimensions] = {};
    const std::int64_t rows = box_bytes(map) / row_bytes;
    for (std::int64_t row = 0; row < rows; ++row, offset += row_bytes) {
        std::int64_t rest = row;
        at[0] = copy.at[0];
        for (int d = 1; d < map.rank; ++d) at[d] = copy.at[d] + rest % map.box[d], rest /= map.box[d];
        copy_row(copy, at, offset);
    }
    arrive(copy.to, static_cast<std::size_t>(box_bytes(map)));
    complete_bytes(copy.barrier, static_cast<std::uint32_t>(box_bytes(map)));
}

}  // namespace

void begin_copies() { on_their_way.clear(); }
void end_copies() {
    if (!on_their_way.empty()) fail("the block has ended, and %zu copies are on their way", on_their_way.size());
}

void copy_box(std::uint32_t to, const CUtensorMap* map, const std::int32_t* coordinates, int rank,
              std::uint32_t barrier) {
    Copy copy{to, tensor_map(*map), {}, barrier};
    if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0) fail("a tensor map that is not aligned to 64 bytes");
    if (copy.map.rank != rank) fail("a copy of %d dimensions from a tensor of %d", rank, copy.map.rank);
    // PTX ISA: 128 bytes; a swizzled box is only where products look for it if its pattern begins with it.
    const std::uint32_t boundary = copy.map.swizzled ? 1024 : 128;
    if (to % boundary != 0)
        fail("thread %d: a copy to shared address %u, which is no multiple of %u", thread_index(), to, boundary);
    for (int d = 0; d < rank; ++d) copy.at[d] = coordinates[d];
    check_arrival(to, static_cast<std::size_t>(box_bytes(copy.map)), completion(barrier));
    if (turned_round())
        finish(copy);
    else
        on_their_way.push_back(copy);
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

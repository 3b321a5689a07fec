#include "shared_memory.h"

#include <cstring>
#include <set>
#include <vector>

#include "block.h"
#include "knowledge.h"
#include "products.h"

namespace emulation {
namespace hopper {
namespace {

constexpr std::uint32_t granule = 4;

struct Granule {
    enum class Writer { none, thread, fenced_thread, copy } writer = Writer::none;
    bool arriving = false;
    int departing = 0;  // copies that read it, not waited for
    int unfenced = 0;   // threads whose stores there no fence has followed
    Moment written;
    std::vector<Moment> readers;
    std::vector<int> products;
};

struct Memory {
    std::vector<unsigned char> bytes;
    std::vector<Granule> granules;
    std::vector<std::set<std::uint32_t>> unfenced;  // granules, for each thread
};
thread_local Memory memory;

// visit(granule, its index), for all that the bytes lie in.
template <class Visit>
void visit_granules(const char* what, std::uint32_t address, std::size_t bytes, Visit visit) {
    if (address < first_address || address + bytes > first_address + memory.bytes.size())
        fail("thread %d: %s at shared address %u, %zu bytes: the block has [%u, %zu)", thread_index(), what, address,
             bytes, first_address, first_address + memory.bytes.size());
    const std::uint32_t begin = (address - first_address) / granule;
    const std::uint32_t end = (address - first_address + static_cast<std::uint32_t>(bytes) + granule - 1) / granule;
    for (std::uint32_t i = begin; i < end; ++i) visit(memory.granules[i], i);
}

[[noreturn]] void refuse(const char* what, std::uint32_t index, const char* why) {
    fail("thread %d: %s at shared address %u: %s", thread_index(), what, first_address + index * granule, why);
}

void check_written(const char* what, const Granule& one, std::uint32_t index) {
    if (one.arriving) refuse(what, index, "a copy has yet to arrive there");
    if (!knowledge().knows(thread_index(), one.written)) refuse(what, index, "it was written, and not waited for");
}
void check_unread(const char* what, const Granule& one, std::uint32_t index) {
    for (const Moment& reader : one.readers)
        if (!knowledge().knows(thread_index(), reader)) refuse(what, index, "a thread may still be reading it");
    if (one.departing > 0) refuse(what, index, "a copy may still be reading it");
    for (int product : one.products)
        if (!product_is_known(product)) refuse(what, index, "a product may still be reading it");
}
void check_fenced(const char* what, const Granule& one, std::uint32_t index) {
    if (one.writer == Granule::Writer::thread) refuse(what, index, "a thread wrote it without fence.proxy.async");
}
void add_reader(Granule& one, Moment now) {
    for (Moment& reader : one.readers)
        if (reader.who == now.who) return void(reader = now);
    one.readers.push_back(now);
}

}  // namespace

void begin_shared_memory(std::size_t bytes) {
    memory.bytes.assign(bytes, 0xff);  // NaN
    memory.granules.assign((bytes + granule - 1) / granule, Granule{});
    memory.unfenced.assign(static_cast<std::size_t>(knowledge().threads()), {});
}

unsigned char* shared_data(std::uint32_t address) { return memory.bytes.data() + (address - first_address); }

void check_load(std::uint32_t address, std::size_t bytes) {
    const Moment now = knowledge().now(thread_index());
    visit_granules("a load", address, bytes, [&](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none && !one.arriving) refuse("a load", index, "nobody wrote it");
        check_written("a load", one, index);
        add_reader(one, now);
    });
}

void check_store(std::uint32_t address, std::size_t bytes) {
    visit_granules("a store", address, bytes, [&](Granule& one, std::uint32_t index) {
        // Threads may write different bytes of a granule.
        if (one.arriving || one.writer == Granule::Writer::copy) check_written("a store", one, index);
        check_unread("a store", one, index);
        one.readers.clear(), one.products.clear();
        one.writer = Granule::Writer::thread;
        one.written = knowledge().now(thread_index());
        one.unfenced += memory.unfenced[static_cast<std::size_t>(thread_index())].insert(index).second;
    });
}

void fence_stores() {
    auto& mine = memory.unfenced[static_cast<std::size_t>(thread_index())];
    for (std::uint32_t index : mine) {
        Granule& one = memory.granules[index];
        --one.unfenced;
        if (one.writer != Granule::Writer::thread) continue;
        if (one.unfenced == 0) one.writer = Granule::Writer::fenced_thread;
        if (one.written.who == thread_index()) one.written = knowledge().now(thread_index());
    }
    mine.clear();
}

void check_arrival(std::uint32_t address, std::size_t bytes, Moment arrived) {
    visit_granules("a copy", address, bytes, [&](Granule& one, std::uint32_t index) {
        check_written("a copy", one, index);
        check_fenced("a copy", one, index);
        check_unread("a copy", one, index);
        one.readers.clear(), one.products.clear();
        one.writer = Granule::Writer::copy;
        one.written = arrived;
        one.arriving = true;
    });
    std::memset(shared_data(address), 0xff, bytes);
}

void arrive(std::uint32_t address, std::size_t bytes) {
    visit_granules("a copy", address, bytes, [](Granule& one, std::uint32_t) { one.arriving = false; });
}

void check_departure(std::uint32_t address, std::size_t bytes) {
    visit_granules("a copy", address, bytes, [](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none) refuse("a copy", index, "nobody wrote it");
        check_written("a copy", one, index);
        check_fenced("a copy", one, index);
        ++one.departing;
    });
}

void depart(std::uint32_t address, std::size_t bytes) {
    const Moment now = knowledge().now(thread_index());
    visit_granules("a copy", address, bytes, [now](Granule& one, std::uint32_t) {
        --one.departing;
        add_reader(one, now);
    });
}

void check_operand(std::uint32_t address, std::size_t bytes, int product) {
    visit_granules("a product", address, bytes, [&](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none) refuse("a product", index, "nobody wrote it");
        check_written("a product", one, index);
        check_fenced("a product", one, index);
        if (one.products.empty() || one.products.back() != product) one.products.push_back(product);
    });
}

}  // namespace hopper
}  // namespace emulation

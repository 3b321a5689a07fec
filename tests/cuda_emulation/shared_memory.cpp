#include "shared_memory.h"

#include <cstring>
#include <vector>

#include "block.h"
#include "hopper/products.h"
#include "knowledge.h"

namespace emulation {
namespace {

constexpr std::uint32_t granule = 4;

// A thread that read a granule, and how many fences it had made by then; a copy that did needs none.
struct Reader {
    static constexpr std::uint32_t needs_no_fence = 0xffffffff;
    Moment moment;
    std::uint32_t fences;
};

struct Granule {
    enum class Writer { none, thread, fenced_thread, copy } writer = Writer::none;
    bool arriving = false;
    int departing = 0;  // copies that read it, not waited for
    int unfenced = 0;   // stores there that no fence of their threads has followed
    Moment written;
    Moment fenced;  // its writer's fence since
    std::vector<Reader> readers;
    std::vector<int> products;

    void nobody_reads() { readers.clear(), products.clear(); }
    void reset() {  // lists keep their memory
        writer = Writer::none, arriving = false, departing = unfenced = 0, written = fenced = {};
        nobody_reads();
    }
};

// Copies and products touch 16 bytes at a time: as long as nobody has touched fewer, the first granule stands for all.
constexpr std::uint32_t line_granules = 4;
struct Line {
    std::uint32_t block = 0;  // that touched it last: to others its granules are new
    bool whole = true;
    Granule first;

    void begin(std::uint32_t now) {
        if (block == now) return;
        block = now, whole = true;
        first.reset();
    }
};

struct Memory {
    std::vector<unsigned char> bytes;
    std::vector<Line> lines;
    std::vector<Granule> others;  // but for lines' first, which lie close together
    std::uint32_t block = 0;
    std::vector<std::vector<std::uint32_t>> unfenced;  // granules that were stored to, for each thread
    std::vector<std::uint32_t> fences;                 // that each thread has made
};
thread_local Memory memory;

Granule& granule_at(std::uint32_t index) {
    const std::uint32_t line = index / line_granules, place = index % line_granules;
    return place == 0 ? memory.lines[line].first : memory.others[line * (line_granules - 1) + place - 1];
}
void split(std::uint32_t line) {
    if (!memory.lines[line].whole) return;
    memory.lines[line].whole = false;
    for (std::uint32_t i = 1; i < line_granules; ++i) granule_at(line * line_granules + i) = memory.lines[line].first;
}

// The calling thread, asked for once for all granules.
struct Caller {
    const Knowledge& all = knowledge();
    const int thread = thread_index();
    int known_product = -1;  // the last that was asked for

    bool knows(Moment moment) const { return all.knows(thread, moment); }
    Moment now() const { return all.now(thread); }
    bool knows_product(int product) {
        if (product != known_product && !hopper::product_is_known(product)) return false;
        known_product = product;
        return true;
    }
};

// visit(granule, its index), for all that the bytes lie in; once for a whole line, unless each is to have its own.
template <class Visit>
void visit_granules(const char* what, std::uint32_t address, std::size_t bytes, Visit visit, bool each = false) {
    if (address < first_address || address + bytes > first_address + memory.bytes.size())
        fail("thread %d: %s at shared address %u, %zu bytes: the block has [%u, %zu)", thread_index(), what, address,
             bytes, first_address, first_address + memory.bytes.size());
    const std::uint32_t begin = (address - first_address) / granule;
    const std::uint32_t end = (address - first_address + static_cast<std::uint32_t>(bytes) + granule - 1) / granule;
    for (std::uint32_t i = begin; i < end;) {
        Line& line = memory.lines[i / line_granules];
        line.begin(memory.block);
        if (!each && line.whole && i % line_granules == 0 && i + line_granules <= end) {
            visit(line.first, i);
            i += line_granules;
        } else {
            split(i / line_granules);
            visit(granule_at(i), i);
            ++i;
        }
    }
}

[[noreturn]] void refuse(const char* what, std::uint32_t index, const char* why) {
    fail("thread %d: %s at shared address %u: %s", thread_index(), what, first_address + index * granule, why);
}

void check_written(const char* what, const Granule& one, std::uint32_t index, const Caller& caller) {
    if (one.arriving) refuse(what, index, "a copy has yet to arrive there");
    if (!caller.knows(one.written)) refuse(what, index, "it was written, and not waited for");
}
void check_unread(const char* what, const Granule& one, std::uint32_t index, Caller& caller) {
    for (const Reader& reader : one.readers)
        if (!caller.knows(reader.moment)) refuse(what, index, "a thread may still be reading it");
    if (one.departing > 0) refuse(what, index, "a copy may still be reading it");
    for (int product : one.products)
        if (!caller.knows_product(product)) refuse(what, index, "a product may still be reading it");
}
void check_fenced(const char* what, const Granule& one, std::uint32_t index, const Caller& caller) {
    if (one.writer == Granule::Writer::thread) refuse(what, index, "a thread wrote it without fence.proxy.async");
    if (!caller.knows(one.fenced)) refuse(what, index, "a thread fenced it, and was not waited for");
}
void check_loads_fenced(const Granule& one, std::uint32_t index) {
    for (const Reader& reader : one.readers)
        if (reader.fences == memory.fences[static_cast<std::size_t>(reader.moment.who)])
            refuse("a copy", index, "a thread read it without fence.proxy.async");
}
void add_reader(Granule& one, Reader now) {
    for (Reader& reader : one.readers)
        if (reader.moment.who == now.moment.who) return void(reader = now);
    one.readers.push_back(now);
}

}  // namespace

void begin_shared_memory(std::size_t bytes) {
    memory.bytes.assign(bytes, 0xff);  // NaN
    const std::size_t line_bytes = line_granules * granule, lines = (bytes + line_bytes - 1) / line_bytes;
    if (memory.lines.size() < lines) memory.lines.resize(lines), memory.others.resize(lines * (line_granules - 1));
    ++memory.block;
    memory.unfenced.resize(static_cast<std::size_t>(knowledge().threads()));
    for (auto& of_thread : memory.unfenced) of_thread.clear();
    memory.fences.assign(memory.unfenced.size(), 0);
}

unsigned char* shared_data(std::uint32_t address) { return memory.bytes.data() + (address - first_address); }

void check_load(std::uint32_t address, std::size_t bytes) {
    const Caller caller;
    const Reader now{caller.now(), memory.fences[static_cast<std::size_t>(caller.thread)]};
    visit_granules("a load", address, bytes, [&](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none && !one.arriving) refuse("a load", index, "nobody wrote it");
        check_written("a load", one, index, caller);
        add_reader(one, now);
    });
}

void check_store(std::uint32_t address, std::size_t bytes) {
    Caller caller;
    auto& unfenced = memory.unfenced[static_cast<std::size_t>(caller.thread)];
    const auto store = [&](Granule& one, std::uint32_t index) {
        // Threads may write different bytes of a granule.
        if (one.arriving || one.writer == Granule::Writer::copy) check_written("a store", one, index, caller);
        check_unread("a store", one, index, caller);
        one.nobody_reads();
        one.writer = Granule::Writer::thread;
        one.written = caller.now(), one.fenced = {};
        ++one.unfenced;
        unfenced.push_back(index);
    };
    visit_granules("a store", address, bytes, store, true);  // a fence finds them by their indices
}

void fence_stores() {
    const Caller caller;
    auto& mine = memory.unfenced[static_cast<std::size_t>(caller.thread)];
    for (std::uint32_t index : mine) {
        Granule& one = granule_at(index);
        --one.unfenced;
        if (one.writer != Granule::Writer::thread) continue;
        if (one.unfenced == 0) one.writer = Granule::Writer::fenced_thread;
        if (one.written.who == caller.thread) one.fenced = caller.now();
    }
    mine.clear();
    ++memory.fences[static_cast<std::size_t>(caller.thread)];
}

void check_async_store(std::uint32_t address, std::size_t bytes) {
    Caller caller;
    visit_granules("cp.async", address, bytes, [&](Granule& one, std::uint32_t index) {
        check_written("cp.async", one, index, caller);
        check_unread("cp.async", one, index, caller);
        one.nobody_reads();
        one.writer = Granule::Writer::copy;
        one.arriving = true;
    });
    std::memset(shared_data(address), 0xff, bytes);
}

void finish_async_store(std::uint32_t address, std::size_t bytes) {
    const Moment now = knowledge().now(thread_index());
    visit_granules("cp.async", address, bytes, [now](Granule& one, std::uint32_t) {
        one.arriving = false;
        one.written = now, one.fenced = {};
    });
}

void check_arrival(std::uint32_t address, std::size_t bytes, Moment arrived) {
    Caller caller;
    visit_granules("a copy", address, bytes, [&](Granule& one, std::uint32_t index) {
        check_written("a copy", one, index, caller);
        check_fenced("a copy", one, index, caller);
        check_unread("a copy", one, index, caller);
        check_loads_fenced(one, index);
        one.nobody_reads();
        one.writer = Granule::Writer::copy;
        one.written = arrived, one.fenced = {};
        one.arriving = true;
        // The granules of a line that lies within the copy are all alike again: none has an unfenced store, or a
        // reader.
        if ((index + 1) % line_granules == 0 && index * granule + first_address >= address + 3 * granule)
            memory.lines[index / line_granules].whole = true;
    });
    std::memset(shared_data(address), 0xff, bytes);
}

void arrive(std::uint32_t address, std::size_t bytes) {
    visit_granules("a copy", address, bytes, [](Granule& one, std::uint32_t) { one.arriving = false; });
}

void check_departure(std::uint32_t address, std::size_t bytes) {
    const Caller caller;
    visit_granules("a copy", address, bytes, [&](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none) refuse("a copy", index, "nobody wrote it");
        check_written("a copy", one, index, caller);
        check_fenced("a copy", one, index, caller);
        ++one.departing;
    });
}

void depart(std::uint32_t address, std::size_t bytes) {
    const Reader now{knowledge().now(thread_index()), Reader::needs_no_fence};
    visit_granules("a copy", address, bytes, [now](Granule& one, std::uint32_t) {
        --one.departing;
        add_reader(one, now);
    });
}

void check_operand(std::uint32_t address, std::size_t bytes, int product) {
    const Caller caller;
    visit_granules("a product", address, bytes, [&](Granule& one, std::uint32_t index) {
        if (one.writer == Granule::Writer::none) refuse("a product", index, "nobody wrote it");
        check_written("a product", one, index, caller);
        check_fenced("a product", one, index, caller);
        if (one.products.empty() || one.products.back() != product) one.products.push_back(product);
    });
}

}  // namespace emulation

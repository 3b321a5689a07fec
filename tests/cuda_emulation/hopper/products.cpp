#include "products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "block.h"
#include "knowledge.h"
#include "shared_memory.h"

namespace emulation {
namespace hopper {
namespace {

constexpr int group_size = 128, rows = 64, depth = 16, most_columns = 256;

// What the threads of a warpgroup do together, once for all of them.
struct Product {
    int columns;
    std::uint64_t a, b;
    bool a_along_rows, b_along_columns, add;
    std::vector<double> sums;  // [row][column], until each thread has taken its own
    int to_take = group_size;
    std::array<std::uint32_t, group_size> known{};  // of each thread, when it had waited; 0: it has not
    std::array<bool, group_size / warp_size> checked{};
    int first_thread;
};

// Sums that products are being added to.
struct Sums {
    float* place;
    std::vector<float> values;
    int last_group;  // of products, of this thread
};

struct Thread {
    bool fenced = false;
    int next = 0;    // of its warpgroup's products
    int groups = 0;  // that are committed
    std::vector<Sums> sums;
    std::vector<std::pair<int, int>> products;  // and their groups, not waited for
};

struct Group {
    std::vector<int> products;
};

thread_local std::vector<std::unique_ptr<Product>> products;
thread_local std::vector<Group> groups;
thread_local std::vector<Thread> threads;

Thread& mine() { return threads[static_cast<std::size_t>(thread_index())]; }
int in_group() { return thread_index() % group_size; }

void together(const char* operation) {
    if ((thread_index() / group_size + 1) * group_size > static_cast<int>(threads.size()))
        fail("thread %d: %s by what is no whole warpgroup", thread_index(), operation);
    wait_for_warp(operation, "", 0, nullptr);
}

// PTX ISA, "Matrix Descriptor Format".
struct Descriptor {
    std::uint32_t start, leading, stride;
    explicit Descriptor(std::uint64_t bits)
        : start(decode(bits)), leading(decode(bits >> 16)), stride(decode(bits >> 32)) {
        if (bits >> 62 != 1) fail("thread %d: a descriptor of another swizzle than that of 128 bytes", thread_index());
        if (bits >> 49 & 7) fail("thread %d: a descriptor with an offset of its base", thread_index());
        if (stride % 1024 != 0) fail("thread %d: a stride of %u bytes tears atoms apart", thread_index(), stride);
    }
    static std::uint32_t decode(std::uint64_t bits) { return static_cast<std::uint32_t>(bits & 0x3fff) << 4; }
};

// The address of an operand's element, in "canonical layouts" (PTX ISA) with a swizzle of 128 bytes: `along` is the
// index that memory goes along, `across` the other. Atoms have 8 rows of 128 bytes.
std::uint32_t address_of(const Descriptor& d, bool along_k, int mn, int k) {
    const std::uint32_t m = static_cast<std::uint32_t>(mn), l = static_cast<std::uint32_t>(k);
    const std::uint32_t offset = along_k ? m / 8 * d.stride + m % 8 * 128 + l * 2
                                         : m / 64 * d.leading + l / 8 * d.stride + l % 8 * 128 + m % 64 * 2;
    const std::uint32_t address = d.start + offset;
    return address ^ ((address >> 7 & 7) << 4);
}

void check_start(const Descriptor& d, bool along_k) {
    // Along k a product may begin within an atom's row, by 32 bytes for every 16 numbers.
    const std::uint32_t rest = d.start % 1024;
    if (along_k ? rest >= 128 || rest % 32 != 0 : rest != 0)
        fail("thread %d: an operand begins at shared address %u, within an atom", thread_index(), d.start);
    if (!along_k && d.leading % 1024 != 0)
        fail("thread %d: a leading offset of %u bytes tears atoms apart", thread_index(), d.leading);
}

// visit(mn, k, address of 16 bytes).
template <class Visit>
void each_granule(const Descriptor& d, bool along_k, int size, Visit visit) {
    for (int mn = 0; mn < size; mn += along_k ? 1 : 8)
        for (int k = 0; k < depth; k += along_k ? 8 : 1) visit(mn, k, address_of(d, along_k, mn, k));
}

// Eight elements.
std::array<double, 8> elements(std::uint32_t address) {
    std::uint16_t upper[8];
    std::memcpy(upper, shared_data(address), sizeof upper);
    std::array<double, 8> values;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(upper[i]) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        values[i] = static_cast<double>(value);
    }
    return values;
}

void check_operands(const Product& product, int index) {
    each_granule(Descriptor(product.a), !product.a_along_rows, rows,
                 [&](int, int, std::uint32_t at) { check_operand(at, 16, index); });
    each_granule(Descriptor(product.b), !product.b_along_columns, product.columns,
                 [&](int, int, std::uint32_t at) { check_operand(at, 16, index); });
}

// A row of the product: each sum from the first k to the last, whatever the vectors' width.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
void multiply_row(const double (&left)[depth], const double (&right)[depth][most_columns], int columns, double* sums) {
    for (int column = 0; column < columns; ++column) sums[column] = 0;
    for (int k = 0; k < depth; k += 4)
        for (int column = 0; column < columns; ++column)
            sums[column] = sums[column] + left[k] * right[k][column] + left[k + 1] * right[k + 1][column] +
                           left[k + 2] * right[k + 2][column] + left[k + 3] * right[k + 3][column];
}

void multiply_operands(Product& product) {
    const Descriptor a(product.a), b(product.b);
    check_start(a, !product.a_along_rows);
    check_start(b, !product.b_along_columns);
    double left[rows][depth], right[depth][most_columns];
    each_granule(a, !product.a_along_rows, rows, [&](int m, int k, std::uint32_t at) {
        const std::array<double, 8> values = elements(at);
        for (int i = 0; i < 8; ++i)
            (product.a_along_rows ? left[m + i][k] : left[m][k + i]) = values[static_cast<std::size_t>(i)];
    });
    each_granule(b, !product.b_along_columns, product.columns, [&](int n, int k, std::uint32_t at) {
        const std::array<double, 8> values = elements(at);
        for (int i = 0; i < 8; ++i)
            (product.b_along_columns ? right[k][n + i] : right[k + i][n]) = values[static_cast<std::size_t>(i)];
    });
    product.sums.resize(static_cast<std::size_t>(rows * product.columns));
    for (int row = 0; row < rows; ++row)
        multiply_row(left[row], right, product.columns, &product.sums[static_cast<std::size_t>(row * product.columns)]);
}

// This thread's part of the next product of its warpgroup.
int find_product(int columns, std::uint64_t a, std::uint64_t b, bool a_along_rows, bool b_along_columns, bool add) {
    Group& group = groups[static_cast<std::size_t>(thread_index() / group_size)];
    const auto next = static_cast<std::size_t>(mine().next++);
    if (next == group.products.size()) {
        auto fresh = std::make_unique<Product>();
        fresh->columns = columns, fresh->a = a, fresh->b = b, fresh->add = add;
        fresh->a_along_rows = a_along_rows, fresh->b_along_columns = b_along_columns;
        fresh->first_thread = thread_index() / group_size * group_size;
        multiply_operands(*fresh);
        group.products.push_back(static_cast<int>(products.size()));
        products.push_back(std::move(fresh));
    }
    const int index = group.products[next];
    Product& product = *products[static_cast<std::size_t>(index)];
    if (product.columns != columns || product.a != a || product.b != b || product.add != add ||
        product.a_along_rows != a_along_rows || product.b_along_columns != b_along_columns)
        fail("thread %d: threads of a warpgroup multiply different things", thread_index());
    bool& checked = product.checked[static_cast<std::size_t>(in_group() / warp_size)];
    if (!checked) check_operands(product, index);
    checked = true;
    return index;
}

const float pending = std::numeric_limits<float>::quiet_NaN();

Sums& sums_at(float* place, int count, bool add) {
    for (Sums& one : mine().sums)
        if (one.place == place) return one;
    mine().sums.push_back({place, std::vector<float>(place, place + count), 0});
    Sums& fresh = mine().sums.back();
    if (!add) fresh.values.assign(static_cast<std::size_t>(count), 0);
    std::fill_n(place, count, pending);
    return fresh;
}

}  // namespace

void begin_products(int count) {
    products.clear();
    threads.assign(static_cast<std::size_t>(count), Thread{});
    groups.assign(static_cast<std::size_t>(count / group_size + 1), Group{});
}

void end_products() {
    for (std::size_t i = 0; i < threads.size(); ++i)
        if (!threads[i].products.empty()) fail("thread %zu has ended, and its products are not waited for", i);
}

void product_fence() {
    together("wgmma.fence");
    mine().fenced = true;
}

// PTX ISA, "Register Fragments" of wgmma: a warp has 16 rows; with g = lane / 4 and t = lane % 4, a thread has of every
// eight columns (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
void multiply(float* place, int columns, std::uint64_t a, std::uint64_t b, bool a_along_rows, bool b_along_columns,
              bool add) {
    together("wgmma.mma_async");
    Thread& thread = mine();
    if (!thread.fenced) fail("thread %d: wgmma.mma_async without wgmma.fence", thread_index());
    const int index = find_product(columns, a, b, a_along_rows, b_along_columns, add);
    Product& product = *products[static_cast<std::size_t>(index)];
    const int row = in_group() / warp_size * 16 + lane() / 4, column = 2 * (lane() % 4);
    Sums& sums = sums_at(place, columns / 2, add);
    sums.last_group = thread.groups;
    for (int i = 0; i < columns / 2; ++i) {
        const int at = (row + 8 * (i % 4 / 2)) * columns + column + i / 4 * 8 + i % 2;
        float& value = sums.values[static_cast<std::size_t>(i)];
        value = towards_zero((add ? static_cast<double>(value) : 0.0) + product.sums[static_cast<std::size_t>(at)]);
    }
    if (--product.to_take == 0) product.sums = {};
    thread.products.emplace_back(index, thread.groups);
}

void commit_products() {
    together("wgmma.commit_group");
    ++mine().groups;
}

void wait_for_products(int but_the_last) {
    together("wgmma.wait_group");
    Thread& thread = mine();
    const int complete = thread.groups - but_the_last;
    std::vector<std::pair<int, int>> still;
    for (const auto& [index, group] : thread.products)
        if (group < complete)
            products[static_cast<std::size_t>(index)]->known[static_cast<std::size_t>(in_group())] =
                knowledge().now(thread_index()).when;
        else
            still.emplace_back(index, group);
    thread.products = std::move(still);
    std::vector<Sums> waiting;
    for (Sums& one : thread.sums) {
        if (one.last_group >= complete) {
            waiting.push_back(std::move(one));
            continue;
        }
        for (std::size_t i = 0; i < one.values.size(); ++i) {
            if (std::memcmp(&one.place[i], &pending, sizeof pending) != 0)
                fail("thread %d: sums were written to while a product was added to them", thread_index());
            one.place[i] = one.values[i];
        }
    }
    thread.sums = std::move(waiting);
    thread.fenced = false;  // they may now be written to
}

// Of every warp that has part in it, one thread is enough: its lanes wait together.
bool product_is_known(int index) {
    const Product& product = *products[static_cast<std::size_t>(index)];
    for (int warp = 0; warp < group_size; warp += warp_size) {
        bool known = false;
        for (int i = warp; i < warp + warp_size && !known; ++i) {
            const std::uint32_t when = product.known[static_cast<std::size_t>(i)];
            known = when != 0 && knowledge().knows(thread_index(), {product.first_thread + i, when});
        }
        if (!known) return false;
    }
    return true;
}

}  // namespace hopper
}  // namespace emulation

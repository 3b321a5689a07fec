// Hopper's instructions in the emulation: what is documented happens, and what is forbidden is found out, by the
// message that says so, in both orders of the threads.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "hopper/tensor_map.h"
#include "kernels/cuda/hopper/descriptor.cuh"
#include "math/bfloat16.h"
#include "refused.h"

using namespace resnetcore;
using namespace resnetcore::cuda;
using namespace resnetcore::cuda::hopper;

namespace {

// A row-major matrix of bfloat16 with its map.
struct Tensor {
    int rows, columns, stride;
    std::vector<bfloat16> memory;
    bfloat16* data;
    CUtensorMap map;

    Tensor(int rows, int columns, int gap, std::array<std::uint32_t, 2> box)
        : rows(rows), columns(columns), stride(columns + gap), memory(static_cast<std::size_t>(rows * stride) + 8) {
        data = memory.data();
        while (reinterpret_cast<std::uintptr_t>(data) % 16 != 0) ++data;
        for (int i = 0; i < rows * stride; ++i) data[i] = to_bfloat16(static_cast<float>(i * 7 % 23 - 11));
        const std::uint64_t size[] = {static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows)};
        const std::uint64_t strides[] = {static_cast<std::uint64_t>(stride) * 2};
        const std::uint32_t steps[] = {1, 1};
        const CUresult result =
            emulation::hopper::encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, size, strides, box.data(),
                                            steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
        CHECK(result == CUDA_SUCCESS, "a map was refused: %d", result);
    }
    float at(int i, int j) const { return i < rows && j < columns ? to_float(data[i * stride + j]) : 0; }
};

Shared stages() { return (shared_memory() + 1023) / 1024 * 1024; }
Shared barriers() { return shared_memory(); }

// By all threads.
void make_barriers(std::initializer_list<std::uint32_t> arrivals) {
    if (threadIdx.x == 0) {
        Shared at = barriers();
        for (std::uint32_t count : arrivals) barrier_init(at, count), at += 8;
        fence_barrier_init();
    }
    __syncthreads();
}

struct Sums {
    float d[64];
    int row(int i) const { return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane() / 4 + i % 4 / 2 * 8; }
    int column(int i) const { return i / 4 * 8 + 2 * (lane() % 4) + i % 2; }
    static int lane() { return static_cast<int>(threadIdx.x) % 32; }
};

// 64 × 64 by 64 × 256, either operand along the sum's terms in memory, or across them; the halves of the columns, and
// their quarter, by narrower instructions.
template <bool a_along_rows, bool b_along_columns>
void operands_are_where_copies_put_them() {
    constexpr std::uint32_t box = 64 * box_row;
    const Tensor a(a_along_rows ? 50 : 61, a_along_rows ? 61 : 50, a_along_rows ? 3 : 6, {64, 64});
    const Tensor b(b_along_columns ? 50 : 249, b_along_columns ? 249 : 50, b_along_columns ? 7 : 6, {64, 64});
    static float c[64][256];
    std::fill_n(c[0], 64 * 256, 0.0f);
    for (int turn = 0; turn < 2; ++turn)
        run(warpgroup, [&] {
            make_barriers({1});
            const Shared left = stages(), right = left + box;
            if (threadIdx.x == 0) {
                arrive_expecting(barriers(), 5 * box);
                copy_box(left, a.map, 0, 0, barriers());
                for (int i = 0; i < 4; ++i)
                    copy_box(right + static_cast<Shared>(i) * box, b.map, b_along_columns ? 64 * i : 0,
                             b_along_columns ? 0 : 64 * i, barriers());
            }
            wait(barriers(), 0);
            Sums sums = {};
            float of_quarter[32] = {}, all[128] = {};
            product_fence();
            for (int k = 0; k < 4; ++k) {
                const std::uint64_t rows = a_along_rows ? across_terms(left, k, box) : along_terms(left, k);
                const std::uint64_t columns = b_along_columns ? across_terms(right, k, box) : along_terms(right, k);
                multiply<a_along_rows, b_along_columns>(sums.d, rows, columns, k > 0);
                multiply<a_along_rows, b_along_columns>(of_quarter, rows, columns, k > 0);
                multiply<a_along_rows, b_along_columns>(all, rows, columns, k > 0);
            }
            commit_products();
            CHECK(std::isnan(sums.d[5]), "sums can be read too early");
            wait_for_products<0>();
            for (int i = 0; i < 32; ++i) CHECK(of_quarter[i] == all[i], "%d: %g, not %g", i, of_quarter[i], all[i]);
            for (int i = 0; i < 64; ++i) CHECK(sums.d[i] == all[i], "%d: %g, not %g", i, sums.d[i], all[i]);
            for (int i = 0; i < 128; ++i) c[sums.row(i)][sums.column(i)] += all[i];
        });
    for (int i = 0; i < 64; ++i)
        for (int j = 0; j < 256; ++j) {
            float exact = 0;
            for (int k = 0; k < 64; ++k)
                exact += 2 * (a_along_rows ? a.at(k, i) : a.at(i, k)) * (b_along_columns ? b.at(k, j) : b.at(j, k));
            CHECK(c[i][j] == exact, "%d %d at %d %d: %g, not %g", a_along_rows, b_along_columns, i, j, c[i][j], exact);
        }
}

// A ring of two stages, filled by one thread and used by two warpgroups, as often as there are steps.
struct Ring {
    int steps = 9;
    bool waits_for_release = true, releases_late = true, waits_for_data = true;
    int expected = 24 << 10;

    std::vector<float> operator()() const {
        constexpr std::uint32_t box = 64 * box_row, stage = 3 * box;
        const Tensor a(128, 64 * steps, 0, {64, 64}), b(64 * steps, 64, 0, {64, 64});
        std::vector<float> first(256);
        run(3 * warpgroup, [&] {
            const Shared full = barriers(), empty = full + 16;
            make_barriers({1, 1, 8, 8});
            if (threadIdx.x < warpgroup) {
                give_registers<24>();
                if (threadIdx.x / 32 != 0 || !elect_one()) return;
                for (int s = 0; s < steps; ++s) {
                    const Shared at = stages() + s % 2 * stage, mine = full + s % 2 * 8;
                    if (waits_for_release) wait(empty + s % 2 * 8, (s / 2 & 1) ^ 1);
                    arrive_expecting(mine, static_cast<std::uint32_t>(expected));
                    copy_box(at, a.map, 64 * s, 0, mine);
                    copy_box(at + box, a.map, 64 * s, 64, mine);
                    copy_box(at + 2 * box, b.map, 0, 64 * s, mine);
                }
                return;
            }
            take_registers<240>();
            const int group = static_cast<int>(threadIdx.x) / warpgroup - 1;
            Sums sums = {};
            for (int s = 0; s < steps; ++s) {
                const Shared at = stages() + s % 2 * stage;
                if (waits_for_data) wait(full + s % 2 * 8, s / 2 & 1);
                product_fence();
                for (int k = 0; k < 4; ++k)
                    multiply<false, true>(sums.d, along_terms(at + group * box, k), across_terms(at + 2 * box, k, 0),
                                          true);
                commit_products();
                if (!releases_late && Sums::lane() == 0) arrive(empty + s % 2 * 8);
                wait_for_products<0>();
                if (releases_late && Sums::lane() == 0) arrive(empty + s % 2 * 8);
            }
            first[threadIdx.x - warpgroup] = sums.d[0];
        });
        for (unsigned i = 0; i < first.size(); ++i) {
            const int row = static_cast<int>(i) / 32 * 16 + static_cast<int>(i) % 32 / 4, column = i % 4 * 2;
            float exact = 0;
            for (int k = 0; k < 64 * steps; ++k) exact += a.at(row, k) * b.at(k, column);
            CHECK(first[i] == exact, "thread %u: %g, not %g", i, first[i], exact);
        }
        return first;
    }
};

// A box to a tensor from where another came, within one and over its edge, and what lies around stays as it is.
void boxes_come_back() {
    constexpr std::uint32_t box = 64 * box_row;
    for (int turn = 0; turn < 2; ++turn)
        for (int x : {0, 40, 128}) {
            const Tensor a(64, 64, 0, {64, 64}), b(70, 88, 8, {64, 64});
            const std::vector<bfloat16> before = b.memory;
            run(warpgroup, [&] {
                make_barriers({1});
                if (threadIdx.x != 0) return;
                arrive_expecting(barriers(), box);
                copy_box(stages(), a.map, 0, 0, barriers());
                wait(barriers(), 0);
                store_box(b.map, x, 10, stages());
                commit_boxes();
                wait_until_boxes_are_read();
                store(stages(), 0, 0);
            });
            for (int i = 0; i < b.rows; ++i)
                for (int j = 0; j < b.stride; ++j) {
                    const int row = i - 10, column = j - x;
                    const bool inside = j < b.columns && row >= 0 && column >= 0 && column < 64;
                    const std::ptrdiff_t at = &b.data[i * b.stride + j] - b.memory.data();
                    const float expected = inside ? a.at(row, column) : to_float(before[static_cast<std::size_t>(at)]);
                    const float found = to_float(b.data[i * b.stride + j]);
                    CHECK(found == expected, "%d %d: %g, not %g", i, j, found, expected);
                }
        }
}

void several_groups_meet() {
    run(5 * warpgroup, [] {
        const std::uint32_t group = threadIdx.x / warpgroup;
        if (group == 0) return;
        const int pair = static_cast<int>(group + 1) / 2;
        for (int round = 0; round < 3; ++round) {
            store(shared_memory() + 16 * threadIdx.x, static_cast<float>(threadIdx.x), static_cast<float>(round));
            meet_groups(pair, 2);
            const Shared other = shared_memory() + 16 * (threadIdx.x + (group % 2 != 0 ? warpgroup : 0u - warpgroup));
            CHECK(load(other + 4) == static_cast<float>(round), "thread %u", threadIdx.x);
            meet_groups(pair, 2);
        }
    });
}

void groups_meet() {
    for (int turn = 0; turn < 2; ++turn)
        run(3 * warpgroup, [] {
            const std::uint32_t group = threadIdx.x / warpgroup, mine = threadIdx.x % warpgroup;
            if (group == 0) return;
            const Shared place = shared_memory() + group * 4096;
            for (int round = 0; round < 3; ++round) {
                store(place + 16 * mine, static_cast<float>(mine), static_cast<float>(round));
                meet_group(group);
                const std::uint32_t other = (mine + 77) % warpgroup;
                CHECK(load(place + 16 * other) == static_cast<float>(other), "thread %u", threadIdx.x);
                CHECK(load(place + 16 * other + 4) == static_cast<float>(round), "thread %u", threadIdx.x);
                meet_group(group);
            }
        });
}

// Numbers in a box, by stores of all threads.
void fill_box(Shared box) {
    for (unsigned i = threadIdx.x; i < 64 * box_row / 8; i += blockDim.x) store(box + 8 * i, 0, 0);
}

// All that a product needs before it, over one box.
void begin_product() {
    fill_box(stages());
    fence_barrier_init();
    __syncthreads();
    product_fence();
}

void multiply_once(float (&d)[64]) {
    multiply<false, true>(d, along_terms(stages(), 0), across_terms(stages(), 0, 0), false);
}

void products_are_ordered() {
    block_is_refused({"wgmma.mma_async without wgmma.fence"}, [] {
        float d[64];
        fill_box(stages());
        fence_barrier_init();
        __syncthreads();
        multiply_once(d);
    });
    block_is_refused({"wrote it without fence.proxy.async"}, [] {
        float d[64];
        fill_box(stages());
        __syncthreads();
        product_fence();
        multiply_once(d);
    });
    block_is_refused({"wrote it without fence.proxy.async"}, [] {  // the others did
        float d[64];
        fill_box(stages());
        if (threadIdx.x != 5) fence_stores();
        __syncthreads();
        product_fence();
        multiply_once(d);
    });
    block_is_refused({"it was written, and not waited for", "nobody wrote it"}, [] {
        float d[64];
        fill_box(stages());
        fence_barrier_init();
        product_fence();
        multiply_once(d);
    });
    block_is_refused({"nobody wrote it"}, [] {
        float d[64];
        product_fence();
        multiply_once(d);
    });
    block_is_refused({"sums were written to"}, [] {
        float d[64];
        fill_box(stages()), fill_box(stages() + 64 * box_row);
        fence_barrier_init();
        __syncthreads();
        product_fence();
        multiply_once(d);
        d[3] = 1;
        commit_products();
        wait_for_products<0>();
    });
    block_is_refused({"its products are not waited for"}, [] {
        float d[64];
        begin_product();
        multiply_once(d);
        commit_products();
    });
    block_is_refused({"a product may still be reading it"}, [] {
        float d[64];
        begin_product();
        multiply_once(d);
        commit_products();
        __syncthreads();
        if (threadIdx.x == 0) store(stages(), 1, 1);
        wait_for_products<0>();
    });
    block_is_refused({"by what is no whole warpgroup"}, [] { product_fence(); }, 96);
    block_is_refused({"some lanes of a warp wait"}, [] {
        if (threadIdx.x % 32 != 3) product_fence();
    });
    block_is_refused({"multiply different things"}, [] {
        float d[64];
        begin_product();
        multiply<false, true>(d, along_terms(stages(), 0), across_terms(stages(), 0, 0), threadIdx.x < 32);
    });
    block_is_refused({"within an atom"}, [] {
        float d[64];
        begin_product();
        multiply<false, true>(d, along_terms(stages() + 512, 0), across_terms(stages(), 0, 0), false);
    });
    block_is_refused({"tears atoms apart"}, [] {
        float d[64];
        begin_product();
        multiply<false, true>(d, descriptor(stages(), 16, 256), across_terms(stages(), 0, 0), false);
    });
}

void rings_are_ordered() {
    is_refused({"may still be reading it", "it was written, and not waited for", "one arrival too many"},
               [] { Ring{9, false}(); });
    is_refused({"may still be reading it"}, [] { Ring{9, true, false}(); });
    is_refused({"yet to arrive there", "it was written, and not waited for", "nobody wrote it"},
               [] { Ring{2, true, true, false}(); });
    is_refused({"nothing goes on"}, [] { Ring{3, true, true, true, (24 << 10) + 16}(); });
    is_refused({"does not expect"}, [] { Ring{3, true, true, true, 16 << 10}(); });
}

void copies_and_barriers_are_checked() {
    static const Tensor a(64, 64, 0, {64, 64});
    static const std::uint32_t bytes = 64 * box_row;
    block_is_refused({"which is no multiple of 1024"}, [] {
        make_barriers({1});
        if (threadIdx.x != 0) return;
        arrive_expecting(barriers(), bytes);
        copy_box(stages() + 128, a.map, 0, 0, barriers());
    });
    block_is_refused({"made without a fence"}, [] {
        if (threadIdx.x != 0) return;
        barrier_init(barriers(), 1);
        arrive_expecting(barriers(), bytes);
        copy_box(stages(), a.map, 0, 0, barriers());
    });
    block_is_refused(
        {"made, and that not waited for", "there is no barrier"},
        [] {
            if (threadIdx.x == 0) barrier_init(barriers(), 2), fence_barrier_init();
            if (threadIdx.x < 2) arrive(barriers());
            __syncthreads();
        },
        2);
    block_is_refused({"one arrival too many"}, [] {
        make_barriers({3});
        if (threadIdx.x == 0) arrive_expecting(barriers(), 16);
        for (int i = 0; i < 3; ++i)
            if (threadIdx.x == 0) arrive(barriers());
    });
    block_is_refused({"nothing goes on: thread"}, [] {
        make_barriers({1});
        if (threadIdx.x == 0) arrive(barriers());
        wait(barriers(), 0);
        wait(barriers(), 1);
    });
    block_is_refused({"copies are on their way"}, [] {
        make_barriers({1});
        if (threadIdx.x != 0) return;
        arrive_expecting(barriers(), 2 * bytes);
        copy_box(stages(), a.map, 0, 0, barriers());
        if (emulation::turned_round()) emulation::fail("copies are on their way");
    });
    block_is_refused({"the block has"}, [] { store(shared_memory() + shared_bytes, 0, 0); });
    block_is_refused({"a thread may still be reading it"}, [] {
        if (threadIdx.x == 0) store(shared_memory(), 1, 2);
        __syncthreads();
        (void)load(shared_memory());
        if (threadIdx.x / 32 == 2) store(shared_memory(), 1, 2);
        __syncthreads();
    });
    block_is_refused({"it was written, and not waited for", "nobody wrote it"}, [] {
        store(shared_memory() + 16 * threadIdx.x, 1, 2);
        (void)load(shared_memory() + 16 * (threadIdx.x ^ 1));
    });
    block_is_refused(
        {"nothing goes on: thread"},
        [] {
            if (threadIdx.x < warpgroup)
                give_registers<152>();
            else
                take_registers<240>();
        },
        3 * warpgroup);
}

void boxes_that_leave_are_checked() {
    static const Tensor a(64, 64, 0, {64, 64});
    static const auto leave = [](bool fenced, bool waits) {
        fill_box(stages());
        if (fenced) fence_stores();
        __syncthreads();
        if (threadIdx.x != 0) return;
        store_box(a.map, 0, 0, stages());
        commit_boxes();
        if (waits) wait_until_boxes_are_read();
    };
    block_is_refused({"wrote it without fence.proxy.async"}, [] { leave(false, true); });
    block_is_refused({"copies still read its shared memory"}, [] { leave(true, false); });
    block_is_refused({"a copy may still be reading it"}, [] {
        leave(true, false);
        __syncthreads();
        if (threadIdx.x == 32) store(stages(), 0, 0);
    });
    block_is_refused({"a thread may still be reading it"}, [] {  // who waited has told nobody
        leave(true, true);
        if (threadIdx.x == 32) wait_until_boxes_are_read(), store(stages(), 0, 0);
        if (emulation::turned_round()) emulation::fail("a thread may still be reading it: it came later");
    });
    block_is_refused({"it was written, and not waited for", "nobody wrote it"}, [] {
        fill_box(stages());
        fence_stores();
        if (threadIdx.x == 0) store_box(a.map, 0, 0, stages());
    });
    block_is_refused({"which is no multiple of 1024"}, [] {
        fill_box(stages());
        fence_stores();
        __syncthreads();
        if (threadIdx.x == 0) store_box(a.map, 0, 0, stages() + 128);
    });
}

// Of 16 bytes, each word has its own writer and readers once somebody touches fewer.
void words_are_told_apart() {
    run(2 * warpgroup, [] {
        const Shared mine = stages() + 4 * threadIdx.x;
        for (std::uint32_t round = 0; round < 3; ++round) {
            if (threadIdx.x % 4 == 0) store_words(mine, {round, round, round, round});
            __syncwarp();
            meet_groups(1, 2);
            CHECK(load_word(mine) == round, "thread %u", threadIdx.x);
            store_word(mine, threadIdx.x);  // beside what others read and write meanwhile
            CHECK(load_word(mine) == threadIdx.x, "thread %u", threadIdx.x);
            meet_groups(1, 2);
        }
    });
    block_is_refused({"it was written, and not waited for", "a thread may still be reading it"}, [] {
        if (threadIdx.x == 0) store_words(stages(), {1, 2, 3, 4});
        __syncthreads();
        if (threadIdx.x == 32) store_word(stages() + 4, 5);
        if (threadIdx.x == 64) (void)load_word(stages() + 4);
    });
    static const Tensor a(64, 64, 0, {64, 64});
    static const auto brought_and_stored = [](bool fenced) {
        make_barriers({1});
        if (threadIdx.x == 0) {
            arrive_expecting(barriers(), 64 * box_row);
            copy_box(stages(), a.map, 0, 0, barriers());
        }
        wait(barriers(), 0);
        if (threadIdx.x == 7) store_word(stages() + 20, 0);
        if (fenced) fence_stores();
        __syncthreads();
        if (threadIdx.x != 0) return;
        store_box(a.map, 0, 0, stages());
        commit_boxes();
        wait_until_boxes_are_read();
    };
    for (int turn = 0; turn < 2; ++turn) run(warpgroup, [] { brought_and_stored(true); });
    block_is_refused({"wrote it without fence.proxy.async"}, [] { brought_and_stored(false); });
}

// A copy comes where threads have read what one before it brought.
void copies_over_what_was_read_are_checked() {
    static const Tensor a(64, 64, 0, {64, 64});
    static const auto twice = [](bool fenced) {
        make_barriers({1, 1});
        for (std::uint32_t turn = 0; turn < 2; ++turn) {
            if (threadIdx.x == 0) {
                arrive_expecting(barriers() + 8 * turn, 64 * box_row);
                copy_box(stages(), a.map, 0, 0, barriers() + 8 * turn);
            }
            wait(barriers() + 8 * turn, 0);
            if (threadIdx.x % 32 == 5) (void)load_word(stages() + 4 * threadIdx.x);
            if (fenced) fence_loads();
            __syncthreads();
        }
    };
    run(warpgroup, [] { twice(true); });
    block_is_refused({"a thread read it without fence.proxy.async"}, [] { twice(false); });
}

void meetings_are_checked() {
    block_is_refused({"barrier 0 of 128 threads"}, [] { meet_group(0); });
    block_is_refused({"waits in barrier.sync 1"}, [] {
        if (threadIdx.x >= 32) meet_group(1);
    });
    block_is_refused({"barrier 1 is one of 128 threads", "barrier 1 is one of 256 threads"},
                     [] { meet_groups(1, threadIdx.x < 32 ? 1 : 2); });
    block_is_refused({"a thread may still be reading it", "it was written, and not waited for"}, [] {
        for (int round = 0; round < 2; ++round) {
            store(shared_memory() + 16 * threadIdx.x, 1, 2);
            meet_group(1);
            (void)load(shared_memory() + 16 * (threadIdx.x ^ 64));
        }
    });
}

void maps_are_checked() {
    alignas(16) static bfloat16 numbers[64 * 64] = {};
    auto encode = [](void* address, std::uint64_t width, std::uint64_t stride, std::uint32_t box) {
        CUtensorMap map;
        const std::uint64_t size[] = {width, 64}, strides[] = {stride};
        const std::uint32_t boxes[] = {box, 64}, steps[] = {1, 1};
        return emulation::hopper::encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, address, size, strides, boxes,
                                               steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    CHECK(encode(numbers, 64, 128, 64) == CUDA_SUCCESS, "a map");
    CHECK(encode(numbers + 1, 64, 128, 64) != CUDA_SUCCESS, "an address");
    CHECK(encode(numbers, 64, 120, 64) != CUDA_SUCCESS, "a stride");
    CHECK(encode(numbers, 64, 112, 64) != CUDA_SUCCESS, "rows that overlap");
    CHECK(encode(numbers, 0, 128, 64) != CUDA_SUCCESS, "no columns");
    CHECK(encode(numbers, 64, 128, 128) != CUDA_SUCCESS, "a box wider than its swizzle");
    CHECK(encode(numbers, 64, 128, 4) != CUDA_SUCCESS, "a box of 8 bytes");
}

}  // namespace

int main() {
    operands_are_where_copies_put_them<false, false>();
    operands_are_where_copies_put_them<false, true>();
    operands_are_where_copies_put_them<true, false>();
    operands_are_where_copies_put_them<true, true>();
    for (int steps : {1, 2, 3, 9})
        for (int turn = 0; turn < 2; ++turn) Ring{steps}();
    boxes_come_back();
    groups_meet();
    several_groups_meet();
    products_are_ordered();
    rings_are_ordered();
    copies_and_barriers_are_checked();
    boxes_that_leave_are_checked();
    words_are_told_apart();
    copies_over_what_was_read_are_checked();
    meetings_are_checked();
    maps_are_checked();
    return summary("hopper_atoms");
}

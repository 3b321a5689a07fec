// Copies past the registers and loads of matrices in the emulation: what is documented happens, and what is forbidden
// is found out, by the message that says so, in both orders of the threads.
#include <array>

#include "kernels/cuda/ampere/atoms.cuh"
#include "refused.h"

using namespace resnetcore::cuda;
using namespace resnetcore::cuda::ampere;

namespace {

constexpr int threads = 64, place = 16;

struct alignas(place) Memory {
    std::array<std::uint16_t, 8 * threads> numbers;
    Memory() {
        for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::uint16_t>(i + 1);
    }
    // Of the thread's.
    const void* at() const { return &numbers[8 * threadIdx.x]; }
} const memory;

Shared mine() { return shared_memory() + place * threadIdx.x; }
// The other warp's.
Shared other() { return shared_memory() + place * (threadIdx.x ^ 32); }

void rows_arrive_in_order() {
    for (int turn = 0; turn < 2; ++turn)
        run(threads, [] {
            copy_place(mine(), memory.at(), place);
            commit_copies();
            copy_place(mine() + place * threads, memory.at(), static_cast<int>(threadIdx.x % 9 * 2));
            commit_copies();
            wait_for_copies<1>();
            __syncthreads();
            const float first = load(other());  // what has not been waited for is elsewhere
            (void)first;
            wait_for_copies<0>();
            __syncthreads();
            for (unsigned of : {threadIdx.x, threadIdx.x ^ 32})
                for (unsigned word = 0; word < 4; ++word) {
                    const unsigned number = 8 * of + 2 * word + 1, there = of % 9;
                    const Shared at = shared_memory() + place * of + 4 * word;
                    CHECK(load_word(at) == ((number + 1) << 16 | number), "thread %u, word %u", of, word);
                    const unsigned low = 2 * word < there ? number : 0, high = 2 * word + 1 < there ? number + 1 : 0;
                    CHECK(load_word(at + place * threads) == (high << 16 | low), "%u numbers, word %u", there, word);
                }
        });
}

// Four matrices: element (i, j) of matrix m is number 64 m + 8 i + j + 1.
void matrices_are_laid_out() {
    for (int turn = 0; turn < 2; ++turn)
        run(32, [] {
            copy_place(mine(), memory.at(), place);
            commit_copies();
            wait_for_copies<0>();
            __syncthreads();
            std::uint32_t x[4], t[4];
            load_matrices(mine(), x);
            load_transposed(mine(), t);
            const unsigned i = threadIdx.x / 4, j = 2 * (threadIdx.x % 4);
            for (unsigned m = 0; m < 4; ++m) {
                const unsigned number = 64 * m + 8 * i + j + 1, across = 64 * m + 8 * j + i + 1;
                CHECK(x[m] == ((number + 1) << 16 | number), "lane %u, matrix %u", threadIdx.x, m);
                CHECK(t[m] == ((across + 8) << 16 | across), "lane %u, matrix %u transposed", threadIdx.x, m);
            }
        });
}

void mistakes_are_found() {
    const auto copy = [] {
        copy_place(mine(), memory.at(), place);
        commit_copies();
    };
    block_is_refused(
        {"a copy has yet to arrive there"},
        [=] {
            copy();
            __syncthreads();
            (void)load(mine());
        },
        threads);
    block_is_refused(
        {"a copy has yet to arrive there"},
        [=] {  // of the last group
            copy();
            wait_for_copies<1>();
            __syncthreads();
            (void)load(mine());
        },
        threads);
    block_is_refused(
        {"it was written, and not waited for", "a copy has yet to arrive there", "nobody wrote it"},
        [=] {
            copy();
            wait_for_copies<0>();
            (void)load(other());
            __syncthreads();
        },
        threads);
    block_is_refused(
        {"a thread may still be reading it", "it was written, and not waited for"},
        [=] {
            copy();
            wait_for_copies<0>();
            __syncthreads();
            (void)load(other());
            copy();
            wait_for_copies<0>();
        },
        threads);
    block_is_refused(
        {"a copy has yet to arrive there"},
        [=] {
            std::uint32_t x[4];
            copy();
            load_matrices(mine(), x);
        },
        threads);
    block_is_refused(
        {"a copy has yet to arrive there"},
        [=] {
            copy();
            store(mine(), 1.0f);
        },
        threads);
    block_is_refused(
        {"it was written, and not waited for", "a copy has yet to arrive there"},
        [=] {  // by other lanes
            std::uint32_t x[4];
            copy();
            wait_for_copies<0>();
            load_matrices(mine(), x);
        },
        threads);
    block_is_refused({"never committed"}, [] { copy_place(mine(), memory.at(), place); }, threads);
    block_is_refused({"nobody has waited for"}, [=] { copy(); }, threads);
    block_is_refused({"a copy to shared address"}, [] { copy_place(mine() + 8, memory.at(), place); }, threads);
    block_is_refused(
        {"from where no 16 bytes begin"}, [] { copy_place(mine(), static_cast<const char*>(memory.at()) + 8, 8); },
        threads);
    block_is_refused({"a copy of 18 bytes"}, [] { copy_place(mine(), memory.at(), 18); }, threads);
    block_is_refused({"the block has"}, [] { copy_place(mine() + shared_bytes, memory.at(), place); }, threads);
    block_is_refused(
        {"a matrix' row at shared address"},
        [] {
            std::uint32_t x[4];
            load_matrices(mine() + 8, x);
        },
        threads);
    block_is_refused(
        {"some lanes of a warp wait for it"},
        [=] {
            std::uint32_t x[4];
            copy();
            wait_for_copies<0>();
            __syncthreads();
            if (threadIdx.x % 2 == 0) load_matrices(mine(), x);
        },
        threads);
}

}  // namespace

int main() {
    rows_arrive_in_order();
    matrices_are_laid_out();
    mistakes_are_found();
    return summary("ampere_atoms");
}

// The emulation itself: threads meet at barriers, lanes exchange, fragments lie where PTX has them, and threads that
// wait for different things are found out.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "../cpp/check.h"
#include "cuda_runtime.h"
#include "kernels/cuda/hopper/meeting.cuh"

namespace hopper = resnetcore::cuda::hopper;

namespace {

void run(unsigned blocks, unsigned threads, const std::function<void()>& thread) {
    emulation::run_grid(dim3(blocks), dim3(threads), 0, thread);
}

void threads_meet() {
    constexpr unsigned threads = 96, blocks = 3;
    std::vector<unsigned> sums(blocks * threads);
    for (int turn = 0; turn < 2; ++turn)  // one runs forwards, one backwards
        run(blocks, threads, [&] {
            __shared__ unsigned values[threads];
            values[threadIdx.x] = threadIdx.x;
            for (unsigned step = 1; step < threads; step *= 2) {
                __syncthreads();
                const unsigned other = values[(threadIdx.x + step) % threads];
                __syncthreads();
                values[threadIdx.x] = values[threadIdx.x] > other ? values[threadIdx.x] : other;
            }
            sums[blockIdx.x * blockDim.x + threadIdx.x] = values[threadIdx.x] + blockIdx.x;
        });
    for (unsigned i = 0; i < sums.size(); ++i) CHECK(sums[i] == threads - 1 + i / threads, "at %u: %u", i, sums[i]);
}

void lanes_exchange() {
    std::vector<int> got(64);
    run(1, 64, [&] {
        int value = static_cast<int>(threadIdx.x);
        for (int mask : {1, 16}) value = __shfl_xor_sync(0xffffffffu, value, mask);
        got[threadIdx.x] = value;
    });
    for (int i = 0; i < 64; ++i) CHECK(got[i] == (i ^ 17), "lane %d has %d", i, got[i]);
    std::vector<unsigned> largest(64);
    run(1, 64, [&] { largest[threadIdx.x] = __reduce_max_sync(0xffffffffu, 0x80000000u + (threadIdx.x * 21) % 64); });
    for (unsigned i = 0; i < 64; ++i) {
        unsigned most = 0;
        for (unsigned k = i / 32 * 32; k < i / 32 * 32 + 32; ++k) most = std::max(most, 0x80000000u + k * 21 % 64);
        CHECK(largest[i] == most, "lane %u has %x, not %x", i, largest[i], most);
    }
}

std::uint32_t pair(int first, int second) {
    auto upper = [](int x) {
        const float value = static_cast<float>(x);
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return bits >> 16;
    };
    return upper(second) << 16 | upper(first);
}

void fragments_are_multiplied() {
    auto a = [](int i, int k) { return (i * 7 + k * 3) % 11 - 5; };
    auto b = [](int k, int j) { return (k * 5 + j * 2) % 13 - 6; };
    float c[16][8];
    run(1, 32, [&] {
        const int group = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
        auto of_a = [&](int i, int k) { return pair(a(i, k), a(i, k + 1)); };
        auto of_b = [&](int k, int j) { return pair(b(k, j), b(k + 1, j)); };
        const std::uint32_t left[4] = {of_a(group, 2 * t), of_a(group + 8, 2 * t), of_a(group, 2 * t + 8),
                                       of_a(group + 8, 2 * t + 8)};
        const std::uint32_t right[2] = {of_b(2 * t, group), of_b(2 * t + 8, group)};
        float sums[4] = {1, 1, 1, 1};
        for (int turn = 0; turn < 2; ++turn) emulation::multiply_fragments(sums, left, right);
        for (int i = 0; i < 4; ++i) c[group + 8 * (i / 2)][2 * t + i % 2] = sums[i];
    });
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j) {
            int exact = 1;
            for (int k = 0; k < 16; ++k) exact += 2 * a(i, k) * b(k, j);
            CHECK(c[i][j] == static_cast<float>(exact), "at %d %d: %g, not %d", i, j, c[i][j], exact);
        }
}

// What a block reads of another is there once they have met, and not before.
void blocks_meet() {
    constexpr unsigned threads = 64, blocks = 3, turns = 3;
    for (int round = 0; round < 2; ++round) {  // one runs forwards, one backwards
        std::uint32_t word = 0, left[blocks] = {}, sums[blocks][turns] = {}, early[blocks] = {};
        emulation::run_grid_together(dim3(blocks), dim3(threads), 0, [&] {
            __shared__ unsigned own;
            for (unsigned turn = 0; turn < turns; ++turn) {
                if (threadIdx.x == 0) own = (turn + 1) * (blockIdx.x + 1);
                __syncthreads();
                if (threadIdx.x == 1) {
                    early[blockIdx.x] +=
                        left[(blockIdx.x + 1) % blocks] == (turn + 1) * ((blockIdx.x + 1) % blocks + 1);
                    left[blockIdx.x] = own;
                    hopper::meet_blocks(&word);
                    for (const std::uint32_t one : left) sums[blockIdx.x][turn] += one;
                    hopper::meet_blocks(&word);
                }
                __syncthreads();
            }
        });
        std::uint32_t seen_early = 0;
        for (unsigned b = 0; b < blocks; ++b) {
            seen_early += early[b];
            for (unsigned turn = 0; turn < turns; ++turn)
                CHECK(sums[b][turn] == 6 * (turn + 1), "block %u, turn %u: %u", b, turn, sums[b][turn]);
        }
        CHECK(seen_early > 0 && seen_early < turns * blocks, "%u were there early", seen_early);
        CHECK((word & 0x7fffffff) == 0, "the word is %x", word);
    }
}

// What others of a block do after one of them has met other blocks, though before these go on, is not seen.
void others_of_a_block_may_be_late() {
    constexpr unsigned blocks = 3;
    std::uint32_t word = 0, left[blocks] = {}, sums[blocks] = {};
    emulation::run_grid_together(dim3(blocks), dim3(64), 0, [&] {
        if (threadIdx.x == 1) {
            hopper::meet_blocks(&word);
            for (const std::uint32_t one : left) sums[blockIdx.x] += one;
        }
        __syncwarp();
        if (threadIdx.x == 60) left[blockIdx.x] = 1;
    });
    CHECK(sums[0] < blocks || sums[1] < blocks || sums[2] < blocks, "all were in time");
}

template <class Thread>
void ends(const char* what, Thread thread, unsigned together = 0) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (!std::freopen("/dev/null", "w", stderr)) _exit(1);
        if (together > 0)
            emulation::run_grid_together(dim3(together), dim3(64), 0, thread);
        else
            run(1, 64, thread);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status), "%s: status %d", what, status);
}

void divergence_is_found_out() {
    ends("some threads skip a barrier", [] {
        if (threadIdx.x != 5) __syncthreads();
    });
    ends("a warp skips a barrier", [] {
        if (threadIdx.x >= 32) __syncthreads();
    });
    ends("a lane skips an exchange", [] {
        if (threadIdx.x != 40) __shfl_xor_sync(0xffffffffu, 1, 1);
    });
    ends("lanes exchange otherwise", [] {
        if (threadIdx.x != 40)
            __shfl_xor_sync(0xffffffffu, 1u, 1);
        else
            __reduce_max_sync(0xffffffffu, 1u);
    });
    static std::uint32_t words[2];
    const auto meets = [](std::uint32_t* word) {
        if (threadIdx.x == 0) hopper::meet_blocks(word);
        __syncthreads();
    };
    ends("blocks meet that need not be there at a time", [&] { meets(words); });
    ends(
        "a block does not come",
        [&] {
            if (blockIdx.x != 1) meets(words);
        },
        3);
    ends("blocks meet by two words", [&] { meets(words + blockIdx.x); }, 2);
}

}  // namespace

int main() {
    threads_meet();
    lanes_exchange();
    fragments_are_multiplied();
    blocks_meet();
    others_of_a_block_may_be_late();
    divergence_is_found_out();
    return summary("emulation");
}

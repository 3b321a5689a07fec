// A ring of stages in shared memory: one thread has them filled by copies, some warps use them up.
//
// Invariant: both sides go through the stages in the same order. A stage is used once its `full` is complete, that is,
// its bytes have arrived, and filled again once its `empty` is: every warp has let go of it, after its products, if it
// has any, were complete. A place's parity is that of its round; for the first round, `empty` is waited for with the
// parity of a round before it, which is taken for complete.
#pragma once

#include "kernels/cuda/hopper/atoms.cuh"

namespace resnetcore {
namespace cuda {
namespace hopper {

class Place {
public:
    __device__ __forceinline__ void advance(std::uint32_t stages) {
        if (++stage_ < stages) return;
        stage_ = 0;
        parity_ ^= 1;
    }
    __device__ __forceinline__ std::uint32_t stage() const { return stage_; }
    __device__ __forceinline__ std::uint32_t parity() const { return parity_; }

private:
    std::uint32_t stage_ = 0, parity_ = 0;
};

constexpr std::uint32_t barrier_bytes(std::uint32_t stages) { return 2 * stages * 8; }

template <std::uint32_t stage_bytes>
class Ring {
public:
    static constexpr std::uint32_t stage_size = stage_bytes;

    // `begin` is on a boundary of 1024 bytes, `barriers` of 8.
    __device__ __forceinline__ Ring(Shared begin, Shared barriers, std::uint32_t stages)
        : begin_(begin), barriers_(barriers), stages_(stages) {}

    // By one thread, before all others meet it.
    __device__ __forceinline__ void make(std::uint32_t using_warps) const {
        for (std::uint32_t i = 0; i < stages_; ++i) {
            barrier_init(full(i), 1);
            barrier_init(empty(i), using_warps);
        }
        fence_barrier_init();
    }

    __device__ __forceinline__ void advance(Place& at) const { at.advance(stages_); }

    // Where the next stage's copies go, which complete on `full`.
    __device__ __forceinline__ Shared begin_filling(const Place& at) const {
        wait(empty(at.stage()), at.parity() ^ 1);
        arrive_expecting(full(at.stage()), stage_bytes);
        return begin(at);
    }
    __device__ __forceinline__ Shared full(const Place& at) const { return full(at.stage()); }

    __device__ __forceinline__ Shared begin_using(const Place& at) const {
        wait(full(at.stage()), at.parity());
        return begin(at);
    }
    // By one lane of each warp that uses stages.
    __device__ __forceinline__ void let_go(const Place& at) const { arrive(empty(at.stage())); }

private:
    __device__ __forceinline__ Shared begin(const Place& at) const { return begin_ + at.stage() * stage_bytes; }
    __device__ __forceinline__ Shared full(std::uint32_t stage) const { return barriers_ + 8 * stage; }
    __device__ __forceinline__ Shared empty(std::uint32_t stage) const { return barriers_ + 8 * (stages_ + stage); }

    Shared begin_, barriers_;
    std::uint32_t stages_;
};

// One room in shared memory that some warps fill and others empty, in turn: who fills waits until it is empty,
// who empties until it is full, and each thread says when it is done.
class Handover {
public:
    static constexpr std::uint32_t bytes = 16;

    // `barriers` is on a boundary of 8 bytes.
    __device__ __forceinline__ explicit Handover(Shared barriers) : full_(barriers), empty_(barriers + 8) {}

    // By one thread, before all others meet it.
    __device__ __forceinline__ void make(std::uint32_t filling_warps, std::uint32_t emptying_warps) const {
        barrier_init(full_, 32 * filling_warps);
        barrier_init(empty_, 32 * emptying_warps);
        fence_barrier_init();
    }
    __device__ __forceinline__ void begin_filling(const Place& turn) const { wait(empty_, turn.parity() ^ 1); }
    __device__ __forceinline__ void begin_emptying(const Place& turn) const { wait(full_, turn.parity()); }
    // By all lanes of a warp: each for itself, as compute-sanitizer does not follow an order by way of another lane.
    __device__ __forceinline__ void end_filling(Place& turn) const { end(full_, turn); }
    __device__ __forceinline__ void end_emptying(Place& turn) const { end(empty_, turn); }

private:
    __device__ __forceinline__ static void end(Shared barrier, Place& turn) {
        arrive(barrier);
        __syncwarp();  // for the compiler, which else takes the warp for divided, and has too few registers
        turn.advance(1);
    }

    Shared full_, empty_;
};

}  // namespace hopper
}  // namespace cuda
}  // namespace resnetcore

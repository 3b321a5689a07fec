// Work in numbered pieces for a team. Piece i belongs to thread i mod threads: the same thread has it in every phase,
// and so what it left in its cache; whoever has done its own takes from the others.
//
// Invariant: the pieces of one owner are begun in order. So a piece may wait for all that have smaller numbers: of
// those not yet done, the smallest is always running, or next of a thread that waits for nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace resnetcore {

class WorkQueue {
public:
    // Room for so many threads; the only call that allocates.
    void reserve(int threads) {
        if (threads > static_cast<int>(next_.size())) next_ = std::vector<Next>(threads);
    }
    // By one thread, with a barrier before the first `take`. Where pieces wait for others, every owner must be there.
    void reset(std::int64_t count, int threads) {
        for (int rank = 0; rank < threads; ++rank) next_[rank].piece.store(rank, std::memory_order_relaxed);
        count_ = count;
        threads_ = threads;
    }
    bool take(int rank, std::int64_t& piece) {
        for (int other = 0; other < threads_; ++other) {
            std::atomic<std::int64_t>& next = next_[(rank + other) % threads_].piece;
            if (next.load(std::memory_order_relaxed) >= count_) continue;
            piece = next.fetch_add(threads_, std::memory_order_relaxed);
            if (piece < count_) return true;
        }
        return false;
    }

private:
    struct alignas(64) Next {
        std::atomic<std::int64_t> piece{0};
    };
    std::vector<Next> next_;  // by owner
    int threads_ = 0;
    std::int64_t count_ = 0;
};

}  // namespace resnetcore

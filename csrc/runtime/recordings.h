// Sequences of a device's work that are asked for again and again: done as they are the first time, recorded the
// second, and played from then on. Launching them one by one costs more than what short ones do; it is what is done
// where the device does not record them.
//
// Invariant: a recording is played only while every address in it is what it was: the key has those that the caller
// chooses, and all recordings are forgotten once the device was asked for memory.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/device.h"

namespace resnetcore {

template <class Key>
class Recordings {
public:
    explicit Recordings(Device& device) : device_(device) { entries_.reserve(most); }
    Recordings(const Recordings&) = delete;
    ~Recordings() { forget(); }

    // `work` is the same calls with the same arguments for the same key, and allocates nothing.
    template <class Work>
    void run(const Key& key, const Work& work) {
        if (!device_.can_record()) return work();
        if (device_.allocations() != allocations_) forget(), allocations_ = device_.allocations();
        Entry* entry = find(key);
        if (entry && !entry->recording && !entry->failed) record(*entry, work);
        if (entry && entry->recording) return device_.play(entry->recording);
        if (!entry) add(key);
        work();
    }

private:
    struct Entry {
        Key key;
        void* recording = nullptr;
        bool failed = false;
    };
    // Of a training: full batches, an epoch's last, and what is tried beside, each in two places of memory by turns.
    static constexpr std::size_t most = 16;

    Entry* find(const Key& key) {
        for (Entry& entry : entries_)
            if (entry.key == key) return &entry;
        return nullptr;
    }
    void add(const Key& key) {
        if (entries_.size() == most) forget();
        entries_.push_back({key});
    }
    template <class Work>
    void record(Entry& entry, const Work& work) {
        entry.failed = !device_.begin_recording();
        if (entry.failed) return;
        try {
            work();
        } catch (...) {
            device_.discard(device_.end_recording());
            throw;
        }
        entry.recording = device_.end_recording();
        entry.failed = !entry.recording;
    }
    void forget() {
        for (const Entry& entry : entries_) device_.discard(entry.recording);
        entries_.clear();
    }

    Device& device_;
    std::uint64_t allocations_ = 0;
    std::vector<Entry> entries_;
};

}  // namespace resnetcore

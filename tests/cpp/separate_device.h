// A device like a GPU, made of the CPU's kernels: its memory faults where the host touches it, work is done later than
// it is asked for, and kernels refuse pointers to the host's memory.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/select.h"
#include "runtime/device.h"

namespace resnetcore {

class SeparateDevice : public Device {
public:
    explicit SeparateDevice(int max_terms = 0) {
        void* memory = mmap(nullptr, capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        memory_ = static_cast<char*>(memory);
        tables_ = {&table_f32, &table_f64, &table_bf16, nullptr};
        wrap(table_f32, max_terms), wrap(table_f64, max_terms), wrap(table_bf16, max_terms);
    }
    ~SeparateDevice() override { munmap(memory_, capacity); }

    const std::string& name() const override { return name_; }
    bool is_host() const override { return false; }

    // Fresh memory every time.
    void* allocate(std::size_t bytes) override {
        if (current() != this || recording_) fail("memory asked for in a recording, or by a thread of another device");
        if (bytes > limit) throw std::bad_alloc();
        char* const block = memory_ + used_;
        used_ += (bytes + 256) / 256 * 256;
        if (used_ > capacity) throw std::bad_alloc();
        sizes_[block] = bytes;
        later([=] { std::memset(block, 0, bytes); });
        return block;
    }
    // Whoever still reads it finds NaNs.
    void release(void* memory) noexcept override {
        const std::size_t bytes = sizes_[memory];
        later([=] { std::memset(memory, 0xff, bytes); });
    }

    void upload(void* to, const void* from, std::size_t bytes) override {
        if (recording_) fail("upload in a recording");
        const std::vector<char> kept(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        later([=] { std::memcpy(to, kept.data(), bytes); });
    }
    void download(void* to, const void* from, std::size_t bytes) override {
        later([=] { std::memcpy(to, from, bytes); });
        synchronize();
        ++downloads;
    }
    void copy(void* to, const void* from, std::size_t bytes) override {
        require_own(to), require_own(from);
        later([=] { std::memcpy(to, from, bytes); });
    }
    void clear(void* memory, std::size_t bytes) override {
        require_own(memory);
        if (failing_clear > 0 && --failing_clear == 0) throw DeviceError("SeparateDevice: told to refuse to clear");
        later([=] { std::memset(memory, 0, bytes); });
    }
    void synchronize() override {
        if (recording_) fail("waiting in a recording");
        const bool fails = failing_wait > 0 && --failing_wait == 0;
        if (fails && loses_work) waiting_.clear();
        mprotect(memory_, capacity, PROT_READ | PROT_WRITE);
        for (const auto& work : waiting_) work();
        mprotect(memory_, capacity, PROT_NONE);
        waiting_.clear();
        if (fails) throw DeviceError("SeparateDevice: told to fail");
    }
    // As early as it may be: what is still to be done with `to` finds it overwritten.
    void send(void* to, const void* from, std::size_t bytes) override {
        if (recording_) fail("a batch sent in a recording");
        require_own(to);
        mprotect(memory_, capacity, PROT_READ | PROT_WRITE);
        std::memcpy(to, from, bytes);
        mprotect(memory_, capacity, PROT_NONE);
    }
    void fetch(void* to, const void* from, std::size_t bytes) override {
        if (at_fetch) at_fetch();
        later([=] { std::memcpy(to, from, bytes); });
    }
    // Of rows that have the network's type.
    void gather(const GatherArgs& args) override {
        require_own_pointers(&args, 1);
        const std::int64_t size = args.to_type == GatherArgs::f64 ? 8 : 4;
        later([=] {
            for (std::int64_t i = 0; i < args.rows * args.columns; ++i) {
                const std::int64_t row = args.chosen[i / args.columns], column = i % args.columns;
                std::memcpy(
                    static_cast<char*>(args.to) + i * size,
                    static_cast<const char*>(args.from) + (row * args.row_stride + column * args.column_stride) * size,
                    static_cast<std::size_t>(size));
            }
        });
    }
    void wait_for(void*) override { synchronize(), ++waits; }
    Before make_current() override { return {0, std::exchange(current(), this)}; }
    void restore(const Before& before) noexcept override { current() = static_cast<SeparateDevice*>(before.context); }

    using Work = std::vector<std::function<void()>>;
    bool can_record() const override { return true; }
    bool begin_recording() override {
        if (records) recording_ = new Work;
        return records;
    }
    void* end_recording() override { return std::exchange(recording_, nullptr); }
    void play(void* recording) override {
        for (const auto& work : *static_cast<Work*>(recording)) waiting_.push_back(work);
        ++plays;
    }
    void discard(void* recording) noexcept override { delete static_cast<Work*>(recording); }

    static SeparateDevice*& current() {
        static SeparateDevice* device = nullptr;
        return device;
    }
    void later(std::function<void()> work) { (recording_ ? *recording_ : waiting_).push_back(std::move(work)); }
    bool owns(const void* pointer) const {
        return static_cast<const char*>(pointer) >= memory_ && static_cast<const char*>(pointer) <= memory_ + used_;
    }
    // No element of `count` structs points to memory that is the host's.
    template <class Struct>
    void require_own_pointers(const Struct* structs, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) {
            Struct one = structs[i];
            __builtin_clear_padding(&one);
            for (std::size_t at = 0; at + sizeof(void*) <= sizeof one; at += sizeof(void*)) {
                std::uintptr_t word;
                std::memcpy(&word, reinterpret_cast<const char*>(&one) + at, sizeof word);
                // Larger than any size, smaller than any double that is not tiny: an address.
                if (word >> 40 != 0 && word >> 47 == 0) require_own(reinterpret_cast<const void*>(word));
            }
        }
    }
    void require_own(const void* pointer) const {
        if (!owns(pointer)) fail("a pointer that is not the device's");
    }
    [[noreturn]] static void fail(const char* what) {
        std::printf("SeparateDevice: %s\n", what);
        std::abort();
    }

    std::size_t limit = SIZE_MAX;  // of one allocation
    int failing_wait = 0;          // the next that raises an error, counted from 1
    int failing_clear = 0;         // likewise
    bool records = true;
    bool loses_work = true;          // what waits for it is not done
    std::function<void()> at_fetch;  // called where one is asked for
    bool is_idle() const { return waiting_.empty(); }
    int downloads = 0, waits = 0, plays = 0;

private:
    template <class T>
    static void wrap(KernelTable<T>& table, int max_terms);

    static constexpr std::size_t capacity = std::size_t{1} << 30;
    const std::string name_ = "separate:0";
    char* memory_ = nullptr;
    std::size_t used_ = 0;
    std::map<void*, std::size_t> sizes_;
    Work waiting_;
    Work* recording_ = nullptr;
    KernelTable<float> table_f32;
    KernelTable<double> table_f64;
    KernelTable<bfloat16> table_bf16;
};

// A kernel call, kept until it is due: arguments are read before it returns, what they point to later.
template <auto member>
struct Deferred;
template <class T, class... Arguments, void (*KernelTable<T>::*member)(Arguments...)>
struct Deferred<member> {
    struct Lists {
        std::vector<Source<T>> sources;
        std::vector<Rows<T>> identity;
    };
    template <class Args>
    static auto keep(Args& args, Lists& lists, int) -> decltype((void)args.sources) {
        SeparateDevice& device = *SeparateDevice::current();
        lists.sources.assign(args.sources, args.sources + args.n_sources);
        lists.identity.assign(args.identity, args.identity + args.n_identity);
        args.sources = nullptr, args.identity = nullptr;
        device.require_own_pointers(&args, 1);
        device.require_own_pointers(lists.sources.data(), args.n_sources);
        device.require_own_pointers(lists.identity.data(), args.n_identity);
        args.sources = lists.sources.data(), args.identity = lists.identity.data();
    }
    template <class Args>
    static void keep(Args& args, Lists&, long) {
        SeparateDevice::current()->require_own_pointers(&args, 1);
    }
    static void call(Arguments... given) {
        std::tuple<std::decay_t<Arguments>...> arguments(given...);
        const auto lists = std::make_shared<Lists>();
        std::apply([&](auto&... one) { (keep(one, *lists, 0), ...); }, arguments);
        SeparateDevice::current()->later(
            [arguments, lists] { std::apply(host_device().kernels<T>().*member, arguments); });
    }
};

template <class T, auto... members>
void defer(KernelTable<T>& table) {
    ((table.*members = Deferred<members>::call), ...);
}

template <class T>
void SeparateDevice::wrap(KernelTable<T>& table, int max_terms) {
    using K = KernelTable<T>;
    table = host_device().kernels<T>();
    table.max_terms = max_terms;
    table.unpack_transposed = nullptr;  // as a GPU's
    defer<T, &K::forward, &K::backward_data, &K::backward_weights, &K::update, &K::update_vectors, &K::moments,
          &K::norm_sums, &K::norm_backward, &K::gate, &K::gate_backward, &K::dropout, &K::loss, &K::combine_moments,
          &K::combine_norm_sums, &K::running_coefficients, &K::fold, &K::largest, &K::conclude, &K::commit, &K::squares,
          &K::clip, &K::scale, &K::overflowed, &K::pack, &K::unpack, &K::pack_operand, &K::pack_transposed, &K::narrow,
          &K::widen>(table);
}

}  // namespace resnetcore

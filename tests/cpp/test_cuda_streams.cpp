// The CUDA module's memory, uploads and recordings over a run time that does everything as late as it may
// (late_cuda/cuda_runtime_api.h): order, pinned memory that is still to be read, and what a recording holds.
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/pinned.h"
#include "kernels/cuda/recording.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"
#include "late_cuda.h"

using namespace resnetcore::cuda;

namespace {

constexpr std::size_t megabyte = std::size_t{1} << 20;

using Bytes = std::vector<unsigned char>;

void be_on(int device) {
    resnetcore::CudaPlace before;
    CHECK(make_current(device, &before) == 0, "%s", last_error());
}

Bytes pattern(std::size_t size, unsigned seed) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<unsigned char>(seed + 31 * i + i / 251);
    return bytes;
}

Bytes downloaded(const void* memory, std::size_t size) {
    Bytes bytes(size);
    CHECK(download(bytes.data(), memory, size) == 0, "%s", last_error());
    return bytes;
}

void an_uploaded_array_may_change_at_once() {
    for (const std::size_t size :
         {std::size_t{1}, std::size_t{65}, megabyte - 1, megabyte, megabyte + 1, 20 * megabyte + 3}) {
        unsigned char* memory = static_cast<unsigned char*>(allocate(size));
        const Bytes expected = pattern(size, 1);
        Bytes given = expected;
        CHECK(upload(memory, given.data(), size) == 0, "%s", last_error());
        std::fill(given.begin(), given.end(), 0);
        CHECK(downloaded(memory, size) == expected, "%zu bytes", size);
        release(0, memory);
    }
}

void many_small_uploads_keep_their_bytes() {
    constexpr std::size_t size = 100, count = 200 * 1000;  // more than all chunks hold
    unsigned char* memory = static_cast<unsigned char*>(allocate(size * count));
    for (std::size_t i = 0; i < count; ++i) {
        const Bytes given = pattern(size, static_cast<unsigned>(i));
        if (upload(memory + i * size, given.data(), size)) CHECK(false, "%s", last_error());
    }
    const Bytes all = downloaded(memory, size * count);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i)
        wrong += std::memcmp(&all[i * size], pattern(size, static_cast<unsigned>(i)).data(), size) != 0;
    CHECK(wrong == 0, "%zu of %zu", wrong, count);
    release(0, memory);
}

void memory_is_zeroed_and_may_run_out() {
    void* memory = allocate(1000);
    CHECK(downloaded(memory, 1000) == Bytes(1000, 0), "not zero");
    late_cuda::memory_left = 500;
    CHECK(allocate(1000) == nullptr, "there was memory");
    CHECK(std::string(last_error()).find("out of memory") != std::string::npos, "%s", last_error());
    CHECK(synchronize() == 0, "want of memory is no error of the device: %s", last_error());
    void* smaller = allocate(400);
    CHECK(smaller != nullptr, "%s", last_error());
    late_cuda::memory_left = std::size_t{1} << 30;
    release(0, smaller);
    release(0, memory);
}

// By a thread that has no device, after work that reads it.
void memory_is_released_after_its_last_use() {
    void* from = allocate(8);
    void* to = allocate(8);
    const Bytes given = pattern(8, 5);
    upload(from, given.data(), 8);
    copy(to, from, 8);
    std::thread([&] { release(0, from); }).join();
    CHECK(downloaded(to, 8) == given, "read after its release");
    release(0, to);
    be_on(1);
    void* other = allocate(8);
    be_on(0);
    release(1, other);
    synchronize();
    const int before = late_cuda::blocks;
    be_on(1);
    synchronize();
    CHECK(late_cuda::blocks == before - 1, "released on another device's stream");
    be_on(0);
}

void a_recording_happens_when_it_is_played() {
    void* from = allocate(8);
    void* to = allocate(8);
    void* other = allocate(8);
    const Bytes first = pattern(8, 1), second = pattern(8, 2), zeros(8, 0);
    CHECK(begin_recording() == 0, "%s", last_error());
    CHECK(begin_recording() != 0, "a second recording began");
    copy(to, from, 8);
    std::thread([&] {
        be_on(0);
        copy(other, from, 8);
    }).join();
    Bytes bytes(8);
    CHECK(upload(from, bytes.data(), 8) != 0 && download(bytes.data(), to, 8) != 0 && synchronize() != 0,
          "not refused");
    void* recording = end_recording();
    CHECK(recording != nullptr, "%s", last_error());
    CHECK(end_recording() == nullptr, "no recording ended");
    upload(from, first.data(), 8);
    CHECK(downloaded(to, 8) == zeros && downloaded(other, 8) == zeros, "done before it was played");
    play(recording);
    CHECK(downloaded(to, 8) == first, "the first time");
    CHECK(downloaded(other, 8) == zeros, "another thread's copy was recorded");
    upload(from, second.data(), 8);
    play(recording);
    CHECK(downloaded(to, 8) == second, "the second time");
    discard(recording);
    for (void* memory : {from, to, other}) release(0, memory);
}

void a_recording_is_discarded_after_it_was_played() {
    void* from = allocate(8);
    void* to = allocate(8);
    begin_recording();
    copy(to, from, 8);
    void* recording = end_recording();
    play(recording);
    be_on(1);
    discard(recording);
    be_on(0);
    CHECK(!late_cuda::destroyed_while_it_played, "while it played");
    for (void* memory : {from, to}) release(0, memory);
}

void an_error_of_a_launch_is_reported_once() {
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(synchronize() != 0, "not reported");
    CHECK(std::string(last_error()).find("cudaErrorInvalidConfiguration") != std::string::npos, "%s", last_error());
    CHECK(synchronize() == 0, "%s", last_error());
}

void an_error_of_a_launch_does_not_end_a_download_early() {
    void* memory = allocate(8);
    const Bytes given = pattern(8, 3);
    upload(memory, given.data(), 8);
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    Bytes bytes(8, 0);
    CHECK(download(bytes.data(), memory, 8) != 0, "not reported");
    CHECK(bytes == given, "still to be written");
    release(0, memory);
}

void a_recording_without_one_of_its_launches_is_none() {
    CHECK(begin_recording() == 0, "%s", last_error());
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(end_recording() == nullptr, "it can be played");
    CHECK(std::string(last_error()).find("cudaErrorInvalidConfiguration") != std::string::npos, "%s", last_error());
    CHECK(synchronize() == 0, "reported twice: %s", last_error());
}

void an_error_from_before_a_recording_is_not_forgotten_by_it() {
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(begin_recording() != 0 && !is_recording(), "it records");
    CHECK(synchronize() != 0, "forgotten");
    CHECK(synchronize() == 0, "reported twice: %s", last_error());
}

void a_device_that_had_no_memory_may_be_asked_again() {
    resnetcore::CudaPlace before;
    late_cuda::memory_left = 0;
    for (int time = 0; time < 2; ++time)
        CHECK(make_current(7, &before) == resnetcore::cuda_out_of_memory, "%s", last_error());
    late_cuda::memory_left = std::size_t{1} << 30;
    CHECK(make_current(7, &before) == 0, "%s", last_error());
    be_on(0);
}

void a_thread_gets_its_device_back() {
    cudaSetDevice(5);  // another library's
    resnetcore::CudaPlace theirs, ours;
    CHECK(make_current(1, &theirs) == 0 && current_context()->device == 1, "%s", last_error());
    CHECK(make_current(0, &ours) == 0 && current_context()->device == 0, "%s", last_error());
    restore(&ours);
    int device = -1;
    cudaGetDevice(&device);
    CHECK(device == 1 && current_context()->device == 1, "%d", device);
    restore(&theirs);
    cudaGetDevice(&device);
    CHECK(device == 5 && current_context()->device == 0, "%d", device);
    be_on(0);
}

// Nor is it made to work on one that nothing works on.
void no_context_is_made_on_a_device_that_nobody_uses() {
    std::thread([] {
        late_cuda::contexts = {1};
        resnetcore::CudaPlace before;
        CHECK(make_current(1, &before) == 0 && before.device == 0, "%s", last_error());
        restore(&before);
        CHECK(late_cuda::contexts == std::set<int>{1} && current_context() == nullptr, "device 0 has one");
    }).join();
    be_on(0);
}

// A batch goes ahead of the work that was asked for before it, and that which is asked for after it waits for it.
void a_batch_is_sent_beside_the_work(std::size_t size) {
    void* memory = allocate(size);
    void* busy = allocate(size);
    void* copied = allocate(size);
    const Bytes given = pattern(size, 7);
    auto* pinned = static_cast<unsigned char*>(allocate_pinned(size));
    auto* answer = static_cast<unsigned char*>(allocate_pinned(size));
    void* mark = make_mark();
    CHECK(pinned && answer && mark, "%s", last_error());
    synchronize();
    std::memcpy(pinned, given.data(), size);
    std::memset(answer, 0, size);
    copy(busy, memory, size);
    CHECK(send(memory, pinned, size) == 0, "%s", last_error());
    copy(copied, memory, size);
    CHECK(fetch(answer, copied, size) == 0 && set_mark(mark) == 0, "%s", last_error());
    clear(copied, size);
    CHECK(fetch(answer, copied, size) == 0, "%s", last_error());
    CHECK(Bytes(answer, answer + size) == Bytes(size, 0), "somebody waited");
    CHECK(wait_for(mark) == 0, "%s", last_error());
    CHECK(Bytes(answer, answer + size) == given,
          "what comes after the mark was waited for, or what comes before was not");
    synchronize();
    discard_mark(mark);
    release_pinned(pinned);
    release_pinned(answer);
    for (void* one : {memory, busy, copied}) release(0, one);
}

void launches_are_asked_after_without_waiting() {
    void* memory = allocate_unset(8);
    void* copied = allocate(8);
    synchronize();
    copy(copied, memory, 8);
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(check_launches() != 0, "not reported");
    CHECK(check_launches() == 0, "reported twice: %s", last_error());
    CHECK(Bytes(static_cast<unsigned char*>(copied), static_cast<unsigned char*>(copied) + 8) == Bytes(8, 0),
          "somebody waited");
    CHECK(downloaded(copied, 8) == Bytes(8, 0xAB), "cleared, or not copied");
    for (void* one : {memory, copied}) release(0, one);
}

void a_fetch_tells_of_a_launch_that_failed() {
    void* memory = allocate(8);
    auto* answer = static_cast<unsigned char*>(allocate_pinned(8));
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(fetch(answer, memory, 8) != 0, "not reported");
    CHECK(fetch(answer, memory, 8) == 0 && synchronize() == 0, "reported twice: %s", last_error());
    release_pinned(answer);
    release(0, memory);
}

void every_kernel_is_loaded_or_the_device_is_not_used() {
    static const char one = 0, other = 0;
    const ListedKernel first(&one), second(&other);
    late_cuda::memory_left = 0;
    CHECK(load_kernels() != 0, "without memory");
    CHECK(std::string(last_error()).find("out of memory") != std::string::npos, "%s", last_error());
    late_cuda::memory_left = std::size_t{1} << 30;
    CHECK(load_kernels() == 0, "%s", last_error());
    CHECK(late_cuda::kernels == (std::set<const void*>{&one, &other}), "%zu are loaded", late_cuda::kernels.size());
}

void a_captured_stream_is_refused() {
    cudaStream_t other = nullptr;
    cudaStreamCreateWithFlags(&other, 0);
    late_cuda::captured = other;
    for (cudaStream_t stream : {other, reinterpret_cast<cudaStream_t>(1)})
        for (const auto order : {wait_for_stream, let_stream_wait})
            CHECK(order(stream) != 0 && std::string(last_error()).find("CUDA graph") != std::string::npos, "%s",
                  last_error());
    late_cuda::captured = nullptr;
    CHECK(wait_for_stream(other) == 0 && let_stream_wait(other) == 0, "%s", last_error());
    synchronize();
    cudaStreamDestroy(other);
}

void an_error_after_which_nothing_works_says_what_to_do() {
    late_cuda::error_of_a_launch = cudaErrorIllegalAddress;
    CHECK(synchronize() != 0 && std::string(last_error()).find("start it again") != std::string::npos, "%s",
          last_error());
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(synchronize() != 0 && std::string(last_error()).find("start it again") == std::string::npos, "%s",
          last_error());
}

void streams_wait_for_each_other() {
    void* memory = allocate(8);
    const Bytes theirs = pattern(8, 9);
    cudaStream_t other = nullptr;
    cudaStreamCreateWithFlags(&other, 0);
    synchronize();
    cudaMemcpyAsync(memory, theirs.data(), 8, cudaMemcpyHostToDevice, other);
    CHECK(wait_for_stream(other) == 0, "%s", last_error());
    CHECK(downloaded(memory, 8) == theirs, "ours came first");
    Bytes seen(8, 1);
    clear(memory, 8);
    CHECK(let_stream_wait(other) == 0, "%s", last_error());
    cudaMemcpyAsync(seen.data(), memory, 8, cudaMemcpyDeviceToHost, other);
    cudaStreamSynchronize(other);
    CHECK(seen == Bytes(8, 0), "theirs came first");
    const Bytes later = pattern(8, 3);
    upload(memory, later.data(), 8);
    late_cuda::error_of_a_launch = cudaErrorInvalidConfiguration;
    CHECK(let_stream_wait(other) != 0 && std::string(last_error()).find("cudaLaunchKernel") == 0, "%s", last_error());
    cudaMemcpyAsync(seen.data(), memory, 8, cudaMemcpyDeviceToHost, other);
    cudaStreamSynchronize(other);
    CHECK(seen == later, "after an error of a launch theirs came first");
    CHECK(let_stream_wait(other) == 0, "an error of a launch is told twice");
    cudaStreamDestroy(other);
    release(0, memory);
}

}  // namespace

int main() {
    be_on(0);
    CHECK(context_of(-1) == nullptr && context_of(64) == nullptr, "a GPU of no number");
    an_uploaded_array_may_change_at_once();
    many_small_uploads_keep_their_bytes();
    memory_is_zeroed_and_may_run_out();
    memory_is_released_after_its_last_use();
    a_recording_happens_when_it_is_played();
    a_recording_is_discarded_after_it_was_played();
    for (const std::size_t size : {std::size_t{8}, std::size_t{5000}})
        a_batch_is_sent_beside_the_work(size);  // in either stream
    launches_are_asked_after_without_waiting();
    a_fetch_tells_of_a_launch_that_failed();
    an_error_of_a_launch_is_reported_once();
    an_error_of_a_launch_does_not_end_a_download_early();
    a_recording_without_one_of_its_launches_is_none();
    an_error_from_before_a_recording_is_not_forgotten_by_it();
    a_device_that_had_no_memory_may_be_asked_again();
    a_thread_gets_its_device_back();
    no_context_is_made_on_a_device_that_nobody_uses();
    streams_wait_for_each_other();
    a_captured_stream_is_refused();
    an_error_after_which_nothing_works_says_what_to_do();
    every_kernel_is_loaded_or_the_device_is_not_used();
    synchronize();
    constexpr int devices = 3;  // whose scratch memory stays
    CHECK(late_cuda::blocks == devices, "%d blocks are left", late_cuda::blocks);
    return summary("cuda_streams");
}

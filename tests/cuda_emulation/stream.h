// A stream: work that runs later, in order. Nothing runs before someone waits, or much has gathered, so that host code
// which relies on a call to have been carried out at its return is found out.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace emulation {

// What to run, and the addresses in device memory that it needs: a kernel has any.
struct Task {
    std::function<void()> run;
    bool is_kernel;
    std::vector<const void*> addresses;
};
using Work = std::shared_ptr<const Task>;
Work kernel_work(std::function<void()> run);
Work copy_work(std::vector<const void*> addresses, std::function<void()> run);
using Recording = std::vector<Work>;

class Stream {
public:
    void add(Work work);
    void wait();  // runs what there is

private:
    void run();
    std::mutex mutex_;
    std::vector<Work> queue_;
};

// The device's stream, or while the calling thread records, that which takes down.
Stream* current_stream();
// Another program's: made by `make_stream`, or one of CUDA's defaults, whose handles are 1 and 2. Null: there is none.
Stream* find_stream(void* handle);
Stream* make_stream();
void enqueue(Work work);

bool recording();
bool begin_recording();
std::unique_ptr<Recording> end_recording();
void play(const Recording& recording);
void wait();

}  // namespace emulation

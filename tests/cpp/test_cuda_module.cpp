// What callers of a CUDA module rely on, and what its emulation is to find out: recorded work, arguments that are read
// at once, memory that only kernels and copies touch.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "device_matrix.h"

using namespace resnetcore;

namespace {

constexpr std::int64_t rows = 5, inner = 7, columns = 3;

struct Product {
    const KernelTable<float>& k = device_kernels<float>();
    DeviceMatrix<float> a{rows, inner, Fill::integers}, w{inner, columns, Fill::integers}, out{rows, columns};
    DeviceMatrix<float> panels{1, packed_size(inner, columns, k.panel)};
    Product() { k.pack_operand(inner, columns, w.view(), panels.data()); }
    void operator()() {
        Source<float> source{a.view(), panels.data(), inner, nullptr};
        ForwardArgs<float> args;
        args.rows = rows, args.columns = columns, args.sources = &source, args.n_sources = 1;
        args.out = out.mutable_view();
        k.forward(args);
        source = {};  // may be reused at once
    }
    void check(const char* when) {
        out.download();
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                double exact = 0;
                for (std::int64_t l = 0; l < inner; ++l) exact += a.at(i, l) * w.at(l, j);
                CHECK(out.at(i, j) == exact, "%s at %d %d: %g, not %g", when, int(i), int(j), out.at(i, j), exact);
            }
    }
};

void recorded_work_is_played() {
    Product product;
    CHECK(device().begin_recording() == 0, "recording");
    product();
    void* recording = device().end_recording();
    CHECK(recording, "recording");
    const std::vector<float> before = product.out.host;
    CHECK(product.out.unchanged(), "recorded work was done");
    for (int turn = 0; turn < 2; ++turn) {
        for (float& x : product.a.host) x = static_cast<float>(small_integer());
        product.a.upload();
        CHECK(device().play(recording) == 0, "play");
        product.check("played");
    }
    device().discard(recording);
}

void the_host_waits_for_no_recording() {
    float number = 0;
    DeviceMatrix<float> some(1, 1);
    CHECK(device().begin_recording() == 0, "recording");
    CHECK(device().begin_recording() != 0, "two recordings at once");
    CHECK(device().synchronize() != 0, "a recording was waited for");
    CHECK(device().download(&number, some.data(), sizeof number) != 0, "a recording was read from");
    CHECK(*device().last_error(), "no reason was given");
    device().discard(device().end_recording());
    CHECK(device().download(&number, some.data(), sizeof number) == 0, "download");
}

void uploads_are_taken_at_once() {
    Product product;
    float* host = product.a.host.data();
    product.a.upload();
    const float kept = host[0];
    host[0] = 100;
    product();
    host[0] = kept;
    product.check("uploaded");
}

void memory_ends() {
    setenv("RESNETCORE_EMULATED_MEMORY", "100000", 1);
    void* some = device().allocate(60000);
    CHECK(some && !device().allocate(60000) && *device().last_error(), "there is more memory than there is");
    device().release(0, some);
    some = device().allocate(90000);
    CHECK(some, "released memory is gone");
    device().release(0, some);
    unsetenv("RESNETCORE_EMULATED_MEMORY");
}

template <class Body>
void ends_by(int signal, const char* what, Body body) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        std::signal(SIGSEGV, SIG_DFL);
        if (!std::freopen("/dev/null", "w", stderr)) _exit(1);
        body();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal, "%s: status %d", what, status);
}

void what_is_wrong_is_found_out() {
    DeviceMatrix<float> some(4, 4, Fill::integers), out(4, 4);
    const KernelTable<float>& k = device_kernels<float>();
    ends_by(SIGSEGV, "the host reads", [&] {
        volatile float x = some.data()[0];
        (void)x;
    });
    ends_by(SIGSEGV, "the host writes", [&] { some.data()[0] = 1; });
    ends_by(SIGSEGV, "a kernel reads behind an array", [&] {
        DeviceMatrix<float> large(300, 4);
        k.narrow(300, 4, some.view(), large.mutable_view(), nullptr);
        device().synchronize();
    });
    ends_by(SIGSEGV, "a kernel reads before an array", [&] {
        k.narrow(4, 4, {some.data() - 4096, 4}, out.mutable_view(), nullptr);
        device().synchronize();
    });
    ends_by(SIGABRT, "a kernel writes a little behind an array", [&] {
        DeviceMatrix<float> small(1, 3);
        k.narrow(1, 4, some.view(), small.mutable_view(), nullptr);
    });
}

}  // namespace

int main() {
    recorded_work_is_played();
    the_host_waits_for_no_recording();
    uploads_are_taken_at_once();
    memory_ends();
    what_is_wrong_is_found_out();
    return summary("cuda_module");
}

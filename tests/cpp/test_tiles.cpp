// AMX's tiles and the operating system: asked for, refused, and kept through everything that interrupts a kernel, as
// sums of small integers must agree to the last bit with plain loops. Where there are no tiles it is skipped, and says
// so; tests/emulate_amx.sh runs it on any machine.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "kernels/select.h"
#include "kernels/tile_permission.h"
#include "math/activation.h"
#include "runtime/thread_pool.h"
#include "small_integers.h"

using namespace resnetcore;

namespace {

constexpr std::uint64_t tile_configuration = 1u << 17, tile_data = 1u << 18;  // components of the state

const Isa& amx() {
    for (const Isa& isa : known_isas())
        if (isa.name == "avx512_amx") return isa;
    std::abort();
}
template <class T>
const KernelTable<T>& table() {
    if constexpr (std::is_same<T, bfloat16>::value)
        return *amx().bf16;
    else
        return *amx().bf16x2;
}

// A product and a weight gradient with tails of tiles in every direction. Running them asks for no memory.
template <class T>
class Work {
public:
    Work() {
        const KernelTable<T>& k = table<T>();
        k.pack_operand(inner, columns, w_.view(), panels_.data());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
                for (std::int64_t s = 0; s < inner; ++s) {
                    expected_out_[i * columns + j] += a_.at(i, s) * w_.at(s, j);
                    expected_gradient_[s * columns + j] += a_.at(i, s) * delta_.at(i, j);
                }
    }

    bool forward_is_right() {
        const Source<T> source{a_.view(), panels_.data(), inner};
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = &source, args.n_sources = 1;
        args.activation = find_activation("identity");
        args.wide = {out_.data(), columns};
        table<T>().forward(args);
        return out_ == expected_out_;
    }
    bool gradient_is_right() {
        BackwardWeightsArgs<T> args;
        args.rows = rows, args.inner = inner, args.columns = columns;
        args.last_panel = panel_count(columns, table<T>().panel);
        args.a = a_.view(), args.delta = delta_.view();
        args.gradient = packed_.data();
        args.room = room_.data();
        table<T>().backward_weights(args);
        table<T>().unpack(inner, columns, packed_.data(), {gradient_.data(), columns});
        return gradient_ == expected_gradient_;
    }
    bool is_right() { return forward_is_right() && gradient_is_right(); }

private:
    static constexpr std::int64_t rows = 50, inner = 70, columns = 45;
    const int panel_ = table<T>().panel;
    Integers<T> a_{rows, inner, Flush::end, true}, delta_{rows, columns, Flush::end, true};
    Integers<float> w_{inner, columns, Flush::end};
    Guarded<T> panels_{operand_size(table<T>(), inner, columns), Flush::end};
    Guarded<T> room_{table<T>().stretch_room(rows, inner), Flush::end};
    Guarded<float> packed_{packed_size(inner, columns, panel_), Flush::end};
    std::vector<float> out_ = std::vector<float>(rows * columns), expected_out_ = out_;
    std::vector<float> gradient_ = std::vector<float>(inner * columns), expected_gradient_ = gradient_;
};

// Runs `body` in a process of its own. Its failures are ours; gives the signal that ended it, or 0.
template <class Body>
int in_child(Body body) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        failures = 0;
        body();
        std::fflush(stdout);
        _exit(failures != 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) return WTERMSIG(status);
    CHECK(WEXITSTATUS(status) == 0, "a child failed");
    return 0;
}

struct alignas(64) Configuration {
    std::uint8_t bytes[64] = {};
    bool operator==(const Configuration& other) const { return std::memcmp(bytes, other.bytes, sizeof bytes) == 0; }
};
Configuration configuration() {
    Configuration now;
    asm volatile("sttilecfg %0" : "=m"(now));
    return now;
}
void configure(const Configuration& wanted) { asm volatile("ldtilecfg %0" ::"m"(wanted)); }
// Components of this thread's state that are not as they were at its start.
std::uint64_t in_use() {
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return std::uint64_t{high} << 32 | low;
}

// Tiles of a program that is not ours: 5 rows of 12 bytes, and 16 of 64.
Configuration of_a_caller() {
    Configuration theirs;
    theirs.bytes[0] = 1;
    theirs.bytes[16] = 12, theirs.bytes[48] = 5;
    theirs.bytes[22] = 64, theirs.bytes[51] = 16;
    return theirs;
}

void expect_a_refusal(const char* by) {
    CHECK(!may_use_tiles(), "%s refuses them", by);
    CHECK(!amx().supported && *amx().obstacle, "%s refuses them: \"%s\"", by, amx().obstacle);
    setenv("RESNETCORE_ISA", "avx512_amx", 1);
    std::string message;
    try {
        current_isa();
    } catch (const ValueError& error) {
        message = error.what();
    }
    CHECK(message.find("not permitted by the operating system") != std::string::npos, "%s: the message is \"%s\"", by,
          message.c_str());
}

// From now on the kernel answers requests for permission with `error`, and does nothing.
void answer_requests_with(int error) {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1023, 0, 1),  // ARCH_REQ_XCOMP_PERM
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "no filter: errno %d", errno);
}

// In children, as one process asks once.
void refused() {
    in_child([] {
        static char memory[4096];  // too small a stack for signals once tiles are in their frames
        stack_t stack{};
        stack.ss_sp = memory, stack.ss_size = sizeof memory;
        CHECK(sigaltstack(&stack, nullptr) == 0, "errno %d", errno);
        expect_a_refusal("Linux");
    });
    in_child([] {
        answer_requests_with(EPERM);
        expect_a_refusal("a sandbox");
    });
    in_child([] {
        answer_requests_with(0);
        expect_a_refusal("a sandbox that says yes");
    });
    const int ended_by = in_child([] {
        configure(of_a_caller());
        asm volatile("tilezero %tmm0");
    });
    CHECK(ended_by == SIGILL, "who does not ask is ended by signal %d", ended_by);
}

template <class T>
void callers_configuration() {
    Work<T> work;
    CHECK(work.is_right(), "at first");
    CHECK(configuration() == Configuration(), "tiles stay configured");
    CHECK((in_use() & (tile_configuration | tile_data)) == 0, "tiles stay in use: %llx",
          static_cast<unsigned long long>(in_use()));
    for (bool (Work<T>::*kernel)() : {&Work<T>::forward_is_right, &Work<T>::gradient_is_right}) {
        configure(of_a_caller());
        CHECK((work.*kernel)(), "with a caller's tiles");
        CHECK(configuration() == of_a_caller(), "a caller's configuration is lost");
        asm volatile("tilerelease");
    }
}

// Several threads on one CPU, each taken from it while it runs kernels. Integers<> repeat a sequence of one thread.
void switched() {
    cpu_set_t before, one;
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);  // of this thread, and of those that it starts
    constexpr int count = 4;
    std::vector<Work<bfloat16>> work(count);
    std::vector<std::thread> threads;
    for (Work<bfloat16>& mine : work)
        threads.emplace_back([&mine] {
            rusage usage{};
            int runs = 0;
            do {
                CHECK(mine.is_right(), "run %d beside other threads", runs);
                getrusage(RUSAGE_THREAD, &usage);
            } while (usage.ru_nivcsw < 10 && ++runs < 100'000);
            CHECK(usage.ru_nivcsw >= 10, "taken from the CPU %ld times", usage.ru_nivcsw);
        });
    for (std::thread& thread : threads) thread.join();
    sched_setaffinity(0, sizeof before, &before);
}

void on_a_team() {
    set_num_threads(3);
    std::vector<Work<bfloat16x2>> work(3);
    run_on_team([&](Team& team) { CHECK(work[team.rank()].is_right(), "on thread %d of the team", team.rank()); });
}

// Signals, some of them while tiles are in use, to a handler that uses tiles itself.
Work<bfloat16>* handlers_work = nullptr;
volatile std::sig_atomic_t signals = 0, with_tiles = 0, wrong = 0;

bool tiles_in_frame(const void* context) {
    const auto* frame = reinterpret_cast<const char*>(static_cast<const ucontext_t*>(context)->uc_mcontext.fpregs);
    std::uint64_t components = 0;
    std::memcpy(&components, frame + 512, sizeof components);  // XSTATE_BV, behind the 512 bytes of FXSAVE
    return components & tile_data;
}
void handle(int, siginfo_t*, void* context) {
    signals = signals + 1;
    with_tiles = with_tiles + tiles_in_frame(context);
    wrong = wrong + !handlers_work->is_right();
}

void interrupted() {
    Work<bfloat16> mine, theirs;
    handlers_work = &theirs;
    struct sigaction action{}, before{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(SIGALRM, &action, &before);
    const itimerval often{{0, 1000}, {0, 1000}}, never{};
    setitimer(ITIMER_REAL, &often, nullptr);
    int runs = 0;
    for (; with_tiles < 30 && runs < 1'000'000; ++runs)
        CHECK(mine.is_right(), "run %d, after %d signals", runs, int(signals));
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before, nullptr);
    CHECK(wrong == 0, "%d of %d handlers were wrong", int(wrong), int(signals));
    CHECK(with_tiles >= 30, "%d of %d signals met tiles in %d runs", int(with_tiles), int(signals), runs);
}

}  // namespace

int main() {
    if (!has_tiles()) {
        std::printf("skipped: this CPU lacks AMX\n");
        return summary("tiles");
    }
    refused();
    std::atomic<bool> asked{false};
    std::thread early([&] {
        while (!asked) std::this_thread::yield();
        CHECK(!amx().supported || Work<bfloat16>().is_right(),
              "on a thread that was there before tiles were asked for");
    });
    const bool permitted = may_use_tiles();
    CHECK(amx().supported == permitted && !*amx().obstacle == permitted, "asked twice");
    asked = true;
    early.join();
    if (!permitted) {
        std::printf("skipped: this system permits no AMX\n");
        return summary("tiles");
    }
    callers_configuration<bfloat16>();
    callers_configuration<bfloat16x2>();
    switched();
    on_a_team();
    interrupted();
    CHECK(in_child([] { CHECK(Work<bfloat16>().is_right(), "in a child"); }) == 0, "a child was ended by a signal");
    return summary("tiles");
}

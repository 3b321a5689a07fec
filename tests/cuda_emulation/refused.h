// Blocks of the emulation, and what ends the process with a message.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "../cpp/check.h"
#include "cuda_runtime.h"

constexpr std::size_t shared_bytes = 100 << 10;
constexpr int warpgroup = 128;

inline void run(int threads, const std::function<void()>& thread, std::size_t bytes = shared_bytes) {
    emulation::run_grid(dim3(1), dim3(static_cast<unsigned>(threads)), bytes, thread);
}

// `body` ends the process, whichever way the launch goes, and says one of these reasons: which thread comes first may
// decide on it.
using Reasons = std::vector<const char*>;
template <class Body>
void is_refused(const Reasons& reasons, Body body) {
    for (int turn = 0; turn < 2; ++turn) {
        std::fflush(stdout);
        int ends[2];
        if (pipe(ends) != 0) return;
        const pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], 2);
            if (turn) emulation::run_grid(dim3(1), dim3(1), 0, [] {});  // turns the order round
            body();
            _exit(0);
        }
        close(ends[1]);
        std::string said;
        char some[256];
        for (ssize_t n; (n = read(ends[0], some, sizeof some)) > 0;) said.append(some, static_cast<std::size_t>(n));
        close(ends[0]);
        int status = 0;
        waitpid(child, &status, 0);
        bool right = false;
        for (const char* reason : reasons) right |= said.find(reason) != std::string::npos;
        CHECK(WIFSIGNALED(status) && right, "status %d, expected '%s', got: %s", status, reasons[0], said.c_str());
    }
}

template <class Thread>
void block_is_refused(const Reasons& reasons, Thread thread, int threads = warpgroup) {
    is_refused(reasons, [&] { run(threads, thread); });
}

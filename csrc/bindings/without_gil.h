// Releases the GIL for a scope. Where the interpreter has begun to end meanwhile, this thread (a daemon) stops here for
// good: taking the GIL back would end the thread by unwinding it, through frames that hold Python objects. Who has the
// GIL after that has begun is the thread that ends the interpreter, as in a `__del__`; it keeps it.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace resnetcore {

class WithoutGil {
public:
    WithoutGil() : state_(finalizing() ? nullptr : PyEval_SaveThread()) {}
    // May be unwound by pthread_exit where the end begins between the check and the lock.
    // NOLINTNEXTLINE(bugprone-unsafe-to-allow-exceptions)
    ~WithoutGil() noexcept(false) {
        if (!state_) return;
        while (finalizing()) pause();
        PyEval_RestoreThread(state_);
    }
    WithoutGil(const WithoutGil&) = delete;

private:
    static bool finalizing() {
#if PY_VERSION_HEX >= 0x030d0000
        return Py_IsFinalizing();
#else
        return _Py_IsFinalizing();
#endif
    }
    PyThreadState* state_;
};

}  // namespace resnetcore

// Nothing but a code crosses the border: what a call throws becomes one, and its message this thread's last error.
#pragma once

#include "capi/resnetcore.h"

namespace resnetcore::capi {

// The code of the exception that is being handled, whose message is kept.
rc_status report() noexcept;

template <class Body>
rc_status guarded(Body body) noexcept {
    try {
        body();
        return RC_OK;
    } catch (...) {
        return report();
    }
}

// body(), or `otherwise` and an error's text.
template <class Result, class Body>
Result guarded_value(Result otherwise, Body body) noexcept {
    Result result = otherwise;
    return guarded([&] { result = body(); }) == RC_OK ? result : otherwise;
}

[[noreturn]] void refuse_null(const char* operation, const char* argument);

// Throws ValueError for a null pointer.
template <class T>
void require(const T* pointer, const char* operation, const char* argument) {
    if (!pointer) refuse_null(operation, argument);
}

}  // namespace resnetcore::capi

// Calls of a kernel that takes a list of vectors: as many at a time as its arguments have room for.
#pragma once

#include "kernels/ops.h"

namespace resnetcore {

template <class Args>
class VectorCalls {
public:
    // What all calls have in common is set in `args`, which has no vectors yet.
    VectorCalls(void (*kernel)(const Args&), const Args& args) : kernel_(kernel), args_(args) {}
    VectorCalls(const VectorCalls&) = delete;
    ~VectorCalls() { call(); }

    template <class Vector>
    void add(const Vector& vector) {
        if (args_.count == vectors_of_call) call();
        args_.vectors[args_.count++] = vector;
    }

private:
    void call() {
        if (args_.count > 0) kernel_(args_);
        args_.count = 0;
    }

    void (*const kernel_)(const Args&);
    Args args_;
};

}  // namespace resnetcore

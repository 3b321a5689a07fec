#include "runtime/stream_order.h"

#include <exception>

namespace resnetcore {

StreamOrder::StreamOrder(CudaDevice& device, void* stream) : current_(device), device_(device), stream_(stream) {
    if (stream_) device_.wait_for_stream(stream_);
}

StreamOrder::~StreamOrder() {
    try {
        if (!finished_) finish();
    } catch (const std::exception&) {
        return;  // the call throws another already
    }
}

void StreamOrder::finish() {
    finished_ = true;
    if (stream_)
        device_.let_stream_wait(stream_);
    else
        device_.synchronize();
}

void StreamOrder::leave() {
    device_.check_launches();
    finished_ = true;
}

}  // namespace resnetcore

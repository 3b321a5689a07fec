#include "kernels/cuda/recording.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/context.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace resnetcore {
namespace cuda {
namespace {

struct Recording {
    cudaGraphExec_t graph;
    cudaStream_t stream;  // that it is played on
};

}  // namespace

int begin_recording() {
    if (is_recording()) return refuse("begin_recording: this thread records already");
    // Its end would take the error for one of its own launches', and forget it.
    if (cudaPeekAtLastError() != cudaSuccess) return refuse("begin_recording: a launch before it has failed");
    cudaStream_t stream = nullptr;
    RC_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    // Other threads may allocate meanwhile, which would end a global capture.
    const int status =
        report(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    if (status) {
        cudaStreamDestroy(stream);
        return status;
    }
    set_recording_stream(stream);
    return 0;
}

void* end_recording() {
    if (!is_recording()) {
        refuse("end_recording: this thread does not record");
        return nullptr;
    }
    cudaStream_t stream = current_stream();
    set_recording_stream(nullptr);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t playable = nullptr;
    int status = report(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    cudaStreamDestroy(stream);
    // A capture does not know of a launch that failed: its graph would be without that kernel, each time it is played.
    if (!status) status = report(cudaPeekAtLastError(), "cudaLaunchKernel");
    if (!status) status = report(cudaGraphInstantiate(&playable, graph, 0), "cudaGraphInstantiate");
    if (graph) cudaGraphDestroy(graph);
    return status ? nullptr : new Recording{playable, current_stream()};
}

int play(void* recording) {
    const Scratch held;
    RC_CUDA_TRY(cudaGraphLaunch(static_cast<Recording*>(recording)->graph, current_stream()));
    return 0;
}

void discard(void* recording) {
    if (!recording) return;
    const auto* const gone = static_cast<Recording*>(recording);
    report(cudaStreamSynchronize(gone->stream), "cudaStreamSynchronize");  // it may be playing
    report(cudaGraphExecDestroy(gone->graph), "cudaGraphExecDestroy");
    delete gone;
}

}  // namespace cuda
}  // namespace resnetcore

// A stack of layers by its name: the text of its topology, and how it is run.
//
// Invariant: the name says all. Compiled graphs outlive processes, on disk, and a call is given nothing else to find
// its program by. Nothing that one call leaves there is read by another, so calls may come in any order and number.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "runtime/aligned.h"
#include "runtime/fork_safe_mutex.h"
#include "train/vjp.h"

namespace resnetcore::xla {

template <class T>
class StackProgram {
public:
    StackProgram(const Topology& topology, const VjpOptions& options) : vjp_(topology, options) {}

    const Vjp<T>& vjp() const { return vjp_; }
    std::int64_t tape_bytes(std::int64_t rows) const { return vjp_.tape_bytes() + rows * vjp_.tape_bytes_of_row(); }

    // As the Vjp's, but the tape may lie anywhere; or be null, of a pass that nobody goes back.
    void forward(VjpPass<T> pass, Compute<T>* out, const std::vector<Compute<T>*>& statistics);
    void backward(VjpPass<T> pass, const Compute<T>* d_out, Compute<T>* d_x, const std::vector<Compute<T>*>& gradients);

private:
    void predict(VjpPass<T> pass, Compute<T>* out);

    Vjp<T> vjp_;
    ForkSafeMutex mutex_;                // of the following
    AlignedArray<std::uint8_t> memory_;  // a tape, for the time of a call
};

using AnyStackProgram =
    std::variant<std::unique_ptr<StackProgram<float>>, std::unique_ptr<StackProgram<double>>,
                 std::unique_ptr<StackProgram<bfloat16>>, std::unique_ptr<StackProgram<bfloat16x2>>>;

// One for all who ask for the same. It lives as long as somebody holds it; `keep`: nobody will, so that the latest few
// of those stay. `topology` is the text of files/topology_text.h, whose matmul precision is what runs, faster or not:
// throws CheckpointError where it is none, BuildFeatureError where the CPU has no kernels for it.
std::shared_ptr<const AnyStackProgram> find_stack(std::string topology, bool training, bool input_gradient, bool keep);

extern template class StackProgram<float>;
extern template class StackProgram<double>;
extern template class StackProgram<bfloat16>;
extern template class StackProgram<bfloat16x2>;

}  // namespace resnetcore::xla

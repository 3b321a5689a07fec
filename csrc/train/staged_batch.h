// A batch where a device's kernels read it: in place where it is there already.
#pragma once

#include <cstdint>

#include "runtime/staged.h"
#include "runtime/step_runner.h"

namespace resnetcore {

template <class T>
struct Batch {
    Rows<Compute<T>> x;
    std::int64_t rows = 0;
    LossTarget<T> target;    // row_loss is filled in
    std::uint32_t step = 0;  // of the dropout's random numbers
    std::uint64_t seed = 0;
    MutableRows<Compute<T>> d_x;  // where ∂E/∂x goes, of a pass that takes it
    // Labels and weights are the host's, which has checked them.
    Memory x_in = Memory::host, targets_in = Memory::host, d_x_in = Memory::host;
};

template <class T>
class StagedBatch {
public:
    StagedBatch(Device& device, std::int64_t inputs, std::int64_t outputs)
        : inputs_(inputs),
          outputs_(outputs),
          x_(device),
          targets_(device),
          class_weight_(device),
          sample_weight_(device),
          labels_(device),
          dropout_(device),
          normaliser_(device),
          d_x_(device) {}

    // All of the batch as one frame. Valid until the next call.
    Frame<T> take(const Batch<T>& batch) {
        key_ = {batch.seed, 0, batch.step};
        Frame<T> frame;
        frame.rows = batch.rows;
        frame.input = x_.rows(batch.x, batch.rows, inputs_, batch.x_in);
        frame.dropout = dropout_.values(&key_, 1);
        frame.target = batch.target;
        frame.target.labels = labels_.values(batch.target.labels, batch.rows);
        frame.target.targets = targets_.rows(batch.target.targets, batch.rows, outputs_, batch.targets_in);
        frame.target.class_weight = class_weight_.values(batch.target.class_weight, batch.target.class_weights);
        frame.target.sample_weight = sample_weight_.values(batch.target.sample_weight, batch.rows);
        frame.target.normaliser = normaliser_.values(batch.target.normaliser, 1);
        frame.output_rows = d_x_.begin(batch.d_x, batch.rows, inputs_, batch.d_x_in);
        return frame;
    }
    // After the pass: ∂E/∂x to where the batch wants it.
    void finish() { d_x_.finish(); }

private:
    const std::int64_t inputs_, outputs_;
    PhiloxKey key_;
    Staged<Compute<T>> x_, targets_, class_weight_, sample_weight_;
    Staged<std::int64_t> labels_;
    Staged<PhiloxKey> dropout_;
    Staged<double> normaliser_;
    Returned<Compute<T>> d_x_;
};

}  // namespace resnetcore

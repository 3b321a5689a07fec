// A batch where a device's kernels read it: in place where it is there already, but for rows that are chosen.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "runtime/frame.h"
#include "runtime/parcel.h"
#include "runtime/staged.h"
#include "topology/memory.h"

namespace resnetcore {

// A batch's inputs.
template <class T>
struct BatchRows {
    Rows<Compute<T>> x;
    std::int64_t rows = 0;
    const std::int64_t* chosen = nullptr;  // the numbers of its rows, in the host's memory; null: the first ones of x
    Memory x_in = Memory::host;
    GatherArgs x_there;  // instead of x, what rows in memory of the device are chosen of
};

template <class T>
struct Batch : BatchRows<T> {
    LossTarget<T> target;    // row_loss is filled in
    double lr = 0;           // of a pass that updates
    std::uint32_t step = 0;  // of the dropout's random numbers
    std::uint64_t seed = 0;
    MutableRows<Compute<T>> d_x;                              // where ∂E/∂x goes, of a pass that takes it
    Memory targets_in = Memory::host, d_x_in = Memory::host;  // labels or values; weights are the host's

    // Whether the pass reads the caller's memory, and not a copy that was made while it was asked for.
    bool is_read_in_place() const {
        return (this->x_in == Memory::device && !this->chosen) || targets_in == Memory::device;
    }
};

// An optimizer's numbers of one step: with weight decay, and without.
template <class T>
using Hypers = std::array<Hyper<Compute<T>>, 2>;

template <class T>
class StagedBatch {
public:
    StagedBatch(Device& device, std::int64_t inputs, std::int64_t outputs)
        : device_(device), inputs_(inputs), outputs_(outputs), parcel_(device), gathered_(device), d_x_(device) {}

    // All of the batch as one frame. Valid until the next call, before which the pass has been waited for.
    Frame<T> take(const Batch<T>& batch, const Hypers<T>& hypers) {
        numbers_.hypers = hypers;
        numbers_.dropout = {batch.seed, 0, batch.step};
        numbers_.normaliser = *batch.target.normaliser;
        Frame<T> frame;
        frame.rows = batch.rows;
        frame.target = batch.target;
        if (device_.is_host())
            take_here(batch, frame);
        else
            send(batch, frame);
        frame.dropout = &there_->dropout;
        frame.target.normaliser = &there_->normaliser;
        frame.output_rows = d_x_.begin(batch.d_x, batch.rows, inputs_, batch.d_x_in);
        return frame;
    }
    const Hyper<Compute<T>>* hypers() const { return there_->hypers.data(); }
    // After the pass: ∂E/∂x to where the batch wants it.
    void finish() { d_x_.finish(); }

private:
    using C = Compute<T>;
    // What is another for each step, however alike the batches are.
    struct Numbers {
        Hypers<T> hypers;
        PhiloxKey dropout;
        double normaliser;
    };

    void take_here(const Batch<T>& batch, Frame<T>& frame) {
        there_ = &numbers_;
        frame.input = batch.x;
        if (!batch.chosen) return;
        const std::int64_t stride = padded_width(inputs_, storage_of<C>);
        gathered_.reserve(batch.rows * stride);
        copy_rows(batch.x, batch.chosen, batch.rows, inputs_, gathered_.data(), stride);
        frame.input = {gathered_.data(), stride};
    }
    void send(const Batch<T>& batch, Frame<T>& frame) {
        const LossTarget<T>& given = batch.target;
        parcel_.begin();
        const auto numbers = parcel_.template add<Numbers>(1);
        const bool has_x = batch.x_in == Memory::host, has_targets = batch.targets_in == Memory::host;
        const auto x = parcel_.template add<C>(has_x ? batch.rows * inputs_ : 0);
        const auto chosen = parcel_.template add<std::int64_t>(has_x || !batch.chosen ? 0 : batch.rows);
        const auto labels = parcel_.template add<std::int64_t>(given.labels && has_targets ? batch.rows : 0);
        const auto targets = parcel_.template add<C>(given.targets.data && has_targets ? batch.rows * outputs_ : 0);
        const auto class_weight = parcel_.template add<C>(given.class_weight ? given.class_weights : 0);
        const auto sample_weight = parcel_.template add<C>(given.sample_weight ? batch.rows : 0);
        parcel_.pack();
        *parcel_.here(numbers) = numbers_;
        if (has_x) copy_rows(batch.x, batch.chosen, batch.rows, inputs_, parcel_.here(x), inputs_);
        std::copy_n(batch.chosen, chosen.size, parcel_.here(chosen));
        std::copy_n(given.labels, labels.size, parcel_.here(labels));
        if (targets.size) copy_rows(given.targets, nullptr, batch.rows, outputs_, parcel_.here(targets), outputs_);
        std::copy_n(given.class_weight, class_weight.size, parcel_.here(class_weight));
        std::copy_n(given.sample_weight, sample_weight.size, parcel_.here(sample_weight));
        parcel_.send();
        there_ = parcel_.there(numbers);
        frame.input = has_x ? Rows<C>{parcel_.there(x), inputs_} : batch.x;
        if (chosen.size) frame.input = gathered(batch, parcel_.there(chosen));
        if (has_targets) {
            frame.target.labels = parcel_.there(labels);
            frame.target.targets = {parcel_.there(targets), outputs_};
        }
        frame.target.class_weight = parcel_.there(class_weight);
        frame.target.sample_weight = parcel_.there(sample_weight);
    }
    Rows<C> gathered(const Batch<T>& batch, const std::int64_t* chosen) {
        gathered_.reserve(batch.rows * inputs_);
        GatherArgs args = batch.x_there;
        args.rows = batch.rows;
        args.columns = inputs_;
        args.chosen = chosen;
        args.to = gathered_.data();
        args.to_type = std::is_same_v<C, double> ? GatherArgs::f64 : GatherArgs::f32;
        device_.gather(args);
        return {gathered_.data(), inputs_};
    }
    static void copy_rows(Rows<C> from, const std::int64_t* chosen, std::int64_t rows, std::int64_t columns, C* to,
                          std::int64_t stride) {
        if (!chosen && from.stride == columns && stride == columns) {
            std::copy_n(from.data, rows * columns, to);
            return;
        }
        for (std::int64_t i = 0; i < rows; ++i)
            std::copy_n(from.data + (chosen ? chosen[i] : i) * from.stride, columns, to + i * stride);
    }

    Device& device_;
    const std::int64_t inputs_, outputs_;
    Numbers numbers_;
    const Numbers* there_ = nullptr;  // in memory of the device
    Parcel parcel_;
    AlignedArray<C> gathered_;  // chosen rows, on the host, or of what is on the device
    Returned<C> d_x_;
};

}  // namespace resnetcore

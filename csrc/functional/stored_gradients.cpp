#include "functional/stored_gradients.h"

#include <deque>

#include "functional/descent.h"
#include "runtime/aligned.h"

namespace resnetcore {
namespace {

// Within a device.
template <class T>
void copy_rows(Device& device, std::int64_t rows, std::int64_t columns, MutableRows<T> from, MutableRows<T> to) {
    if (rows == 0) return;
    if (rows == 1 || (from.stride == columns && to.stride == columns))
        return device.copy(to.data, from.data, static_cast<std::size_t>(rows * columns) * sizeof(T));
    const KernelTable<T>& kernels = device.template kernels<T>();
    if constexpr (computes_itself<T>) {
        kernels.narrow(rows, columns, from, to, nullptr);
    } else {
        const AlignedArray<Compute<T>> wide(device, rows * columns);
        const MutableRows<Compute<T>> room{const_cast<Compute<T>*>(wide.data()), columns};
        kernels.widen(rows, columns, from, room);
        kernels.narrow(rows, columns, room, to, nullptr);
    }
}

// A block's gradients where its kernels write them: to the caller where that is as he stores them, else to rooms.
template <class T>
class Results {
public:
    Results(const ResidualArguments<T>& arguments, const StoredGradients<T>& out)
        : arguments_(arguments), out_(out), delta_(*arguments.device) {
        views_.sources = out.sources;
        for (std::size_t s = 0; s < out.weights.size(); ++s)
            views_.weights.push_back(begin(out.weights[s], arguments.weights[s].rows));
        if (out.bias.rounded.data || out.bias.wide.data) views_.bias = begin(out.bias, 1).data;
        if (out.deltas.empty()) {
            check_copyable(arguments.rows, arguments.columns);
            delta_.reserve(arguments.rows * arguments.columns);
            views_.delta = {delta_.data(), arguments.columns};
        } else {
            views_.delta = out.deltas[0];
        }
    }

    ResidualGradients<T>& views() { return views_; }

    // Once they are computed: what the caller wants otherwise, or again.
    void deliver() const {
        Device& device = *arguments_.device;
        for (const Sum& s : sums_)
            device.template kernels<T>().narrow(s.rows, arguments_.columns, {s.room.data(), arguments_.columns}, s.to,
                                                nullptr);
        for (std::size_t i = 1; i < out_.deltas.size(); ++i)
            copy_rows(device, arguments_.rows, arguments_.columns, views_.delta, out_.deltas[i]);
    }

private:
    struct Sum {
        AlignedArray<Compute<T>> room;
        MutableRows<T> to;
        std::int64_t rows;
    };

    MutableRows<Compute<T>> begin(const StoredSum<T>& to, std::int64_t rows) {
        if (to.wide.data) return to.wide;
        if constexpr (computes_itself<T>) return to.rounded;
        sums_.push_back({AlignedArray<Compute<T>>(*arguments_.device, rows * arguments_.columns), to.rounded, rows});
        return {sums_.back().room.data(), arguments_.columns};
    }

    const ResidualArguments<T>& arguments_;
    const StoredGradients<T>& out_;
    ResidualGradients<T> views_;
    std::deque<Sum> sums_;
    AlignedArray<T> delta_;
};

}  // namespace

template <class T>
void residual_backward(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                       const StoredGradients<T>& out) {
    Results<T> results(arguments, out);
    residual_backward(arguments, gradient, a, results.views());
    results.deliver();
}

template <class T>
void residual_update(const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                     const TrainedMatrices<T>& trained, double lr, const StoredGradients<T>& out) {
    Results<T> results(arguments, out);
    std::deque<Descent<T>> descents;
    for (const Strided<T>& w : trained.weights) {
        descents.emplace_back(*arguments.device, w, lr);
        results.views().weights.push_back(descents.back().gradient());
    }
    if (trained.bias.data) {
        descents.emplace_back(*arguments.device, trained.bias, lr);
        results.views().bias = descents.back().gradient().data;
    }
    residual_backward(arguments, gradient, a, results.views());
    results.deliver();
    for (Descent<T>& descent : descents) descent.step();
}

template void residual_backward(const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                const StoredGradients<float>&);
template void residual_backward(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                const StoredGradients<double>&);
template void residual_backward(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                const StoredGradients<bfloat16>&);
template void residual_update(const ResidualArguments<float>&, Rows<float>, Rows<float>, const TrainedMatrices<float>&,
                              double, const StoredGradients<float>&);
template void residual_update(const ResidualArguments<double>&, Rows<double>, Rows<double>,
                              const TrainedMatrices<double>&, double, const StoredGradients<double>&);
template void residual_update(const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                              const TrainedMatrices<bfloat16>&, double, const StoredGradients<bfloat16>&);

}  // namespace resnetcore

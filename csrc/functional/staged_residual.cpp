#include "functional/staged_residual.h"

#include <deque>

#include "runtime/staged.h"

namespace resnetcore {
namespace {

// Copies of a call's arguments in memory of the device, for as long as this lives.
template <class T>
class StagedArguments {
public:
    StagedArguments(Device& device, const ResidualArguments<T>& given, const char* operation) : arguments_(given) {
        arguments_.device = &device;
        check_fits(arguments_, operation);
        for (auto* matrices : {&arguments_.sources, &arguments_.weights, &arguments_.identity})
            for (Matrix<T>& m : *matrices) {
                const Rows<T> there = rows({m.data, m.stride}, m.stored_rows(), m.stored_columns());
                m.data = there.data, m.stride = there.stride;
            }
        if (given.bias) arguments_.bias = rows({given.bias, given.columns}, 1, given.columns).data;
    }
    const ResidualArguments<T>& get() const { return arguments_; }
    Rows<T> rows(Rows<T> from, std::int64_t rows, std::int64_t columns) {
        check_copyable(rows, columns);
        arrays_.emplace_back(*arguments_.device);
        return arrays_.back().rows(from, rows, columns);
    }

private:
    ResidualArguments<T> arguments_;
    std::deque<Staged<T>> arrays_;
};

// Results in memory of the device until `finish`, which waits for them.
template <class T>
class ReturnedArrays {
public:
    explicit ReturnedArrays(Device& device) : device_(device) {}
    MutableRows<T> begin(MutableRows<T> to, std::int64_t rows, std::int64_t columns) {
        arrays_.emplace_back(device_);
        return arrays_.back().begin(to, rows, columns);
    }
    void finish() {
        for (Returned<T>& array : arrays_) array.finish();
    }

private:
    Device& device_;
    std::deque<Returned<T>> arrays_;
};

}  // namespace

template <class T>
void residual_forward_on(Device& device, const ResidualArguments<T>& arguments, MutableRows<T> out,
                         MutableRows<Compute<T>> wide, const char* operation) {
    if (device.is_host()) return residual_forward(arguments, out, wide);
    const CurrentDevice current(device);
    const StagedArguments<T> staged(device, arguments, operation);
    Returned<T> narrow_result(device);
    Returned<Compute<T>> wide_result(device);
    residual_forward(staged.get(), narrow_result.begin(out, arguments.rows, arguments.columns),
                     wide_result.begin(wide, arguments.rows, arguments.columns));
    narrow_result.finish();
    wide_result.finish();
}

template <class T>
void residual_backward_on(Device& device, const ResidualArguments<T>& arguments, Rows<T> gradient, Rows<T> a,
                          const ResidualGradients<T>& out, const char* operation) {
    if (device.is_host()) return residual_backward(arguments, gradient, a, out);
    const CurrentDevice current(device);
    const std::int64_t rows = arguments.rows, columns = arguments.columns;
    StagedArguments<T> staged(device, arguments, operation);
    ReturnedArrays<T> stored(device);
    ReturnedArrays<Compute<T>> summed(device);
    ResidualGradients<T> there;
    for (std::size_t s = 0; s < out.sources.size(); ++s)
        there.sources.push_back(stored.begin(out.sources[s], rows, arguments.sources[s].columns));
    for (std::size_t s = 0; s < out.weights.size(); ++s)
        there.weights.push_back(summed.begin(out.weights[s], arguments.weights[s].rows, columns));
    if (out.bias) there.bias = summed.begin({out.bias, columns}, 1, columns).data;
    there.delta = stored.begin(out.delta, rows, columns);
    residual_backward(staged.get(), staged.rows(gradient, rows, columns), staged.rows(a, rows, columns), there);
    stored.finish();
    summed.finish();
}

template void residual_forward_on(Device&, const ResidualArguments<float>&, MutableRows<float>, MutableRows<float>,
                                  const char*);
template void residual_forward_on(Device&, const ResidualArguments<double>&, MutableRows<double>, MutableRows<double>,
                                  const char*);
template void residual_forward_on(Device&, const ResidualArguments<bfloat16>&, MutableRows<bfloat16>,
                                  MutableRows<float>, const char*);
template void residual_backward_on(Device&, const ResidualArguments<float>&, Rows<float>, Rows<float>,
                                   const ResidualGradients<float>&, const char*);
template void residual_backward_on(Device&, const ResidualArguments<double>&, Rows<double>, Rows<double>,
                                   const ResidualGradients<double>&, const char*);
template void residual_backward_on(Device&, const ResidualArguments<bfloat16>&, Rows<bfloat16>, Rows<bfloat16>,
                                   const ResidualGradients<bfloat16>&, const char*);

}  // namespace resnetcore

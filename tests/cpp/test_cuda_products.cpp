// residual_forward and residual_backward_data on a CUDA device against plain loops in double: every type of storage,
// sizes around a block's tile, any number of sources and skips, every activation and part of the epilogue.
#include "device_products.h"

using namespace resnetcore;

namespace {

template <class T>
void run() {
    const std::vector<std::vector<std::int64_t>> inners = {
        {}, {0}, {1}, {17, 3}, {64}, {530}, {16}, {33, 0, 70}, {0, 0, 2, 0}, std::vector<std::int64_t>(11, 5)};
    for (int turn = 0; turn < 120; ++turn) {
        const Fill fill = turn % 3 == 0 ? Fill::integers : Fill::reals;
        const int activation = fill == Fill::integers ? turn / 3 % 2 : turn % activation_count();
        const std::int64_t rows = one_of({1, 5, 63, 64, 65, 130}), columns = one_of({1, 7, 63, 64, 65, 129});
        const std::vector<std::int64_t>& terms = inners[static_cast<std::size_t>(turn) % inners.size()];
        const int skips = int(one_of({0, 0, 1, 2, 12}));
        Case<T> one{std::string(type_of<T>()) + " " + std::to_string(rows) + " x " + std::to_string(columns) +
                        " from " + std::to_string(terms.size()) + " of " +
                        std::to_string(terms.empty() ? 0 : terms[0]) + ", " + std::to_string(skips) + " skips, " +
                        activation_name(activation),
                    Sum<T>(rows, columns, terms, skips, fill), activation, fill == Fill::integers};
        one.forward();
        one.backward();
    }
}

// What a layer must not turn into a number, and the derivative at zero.
template <class T>
void special_values() {
    for (int activation = 0; activation < activation_count(); ++activation) {
        DeviceMatrix<T> in(1, 3, Fill::zeros), out(1, 3, Fill::zeros);
        in(0, 0) = stored<T>(NAN), in(0, 1) = stored<T>(1);
        in.upload();
        const Rows<T> skip = in.view();
        ForwardArgs<T> args;
        args.rows = 1, args.columns = 3, args.activation = activation;
        args.identity = &skip, args.n_identity = 1, args.out = out.mutable_view();
        device_kernels<T>().forward(args);
        out.download();
        CHECK(std::isnan(out.at(0, 0)) && !std::isnan(out.at(0, 1)), "%s %s: NaN", type_of<T>(),
              activation_name(activation));
        if (std::string(activation_name(activation)) != "relu") continue;
        BackwardDataArgs<T> back;
        back.rows = 1, back.columns = 3, back.activation = activation;
        const Rows<T> ones{in.data() + 1, 0};
        back.identity = &ones, back.n_identity = 1, back.saved = in.view(), back.out = out.mutable_view();
        back.columns = 1, back.saved.data = in.data() + 2;
        device_kernels<T>().backward_data(back);
        out.download();
        CHECK(out.at(0, 0) == 0, "%s: relu's derivative at 0 is %g", type_of<T>(), out.at(0, 0));
    }
}

// A row's result does not depend on the rows beside it.
template <class T>
void rows_alone() {
    Sum<T> sum(70, 65, {150, 40}, 0, Fill::reals);
    DeviceMatrix<T> together(70, 65, Fill::zeros), alone(70, 65, Fill::zeros);
    ForwardArgs<T> args;
    args.rows = 70, args.columns = 65, args.sources = sum.sources.data(), args.n_sources = 2;
    args.out = together.mutable_view();
    device_kernels<T>().forward(args);
    for (std::int64_t i = 0; i < 70; ++i) {
        std::vector<Source<T>> sources = sum.sources;
        for (Source<T>& s : sources) s.rows.data += i * s.rows.stride;
        args.rows = 1, args.sources = sources.data(), args.out = {alone.data() + i * alone.stride, alone.stride};
        device_kernels<T>().forward(args);
    }
    together.download(), alone.download();
    CHECK(together.same_bits(alone), "%s: a row's result depends on its batch", type_of<T>());
}

}  // namespace

int main() {
    each_type([](auto type) {
        using T = decltype(type);
        run<T>();
        special_values<T>();
        check_largest_places<T>({1, 63, 130}, {1, 7, 65});
        rows_alone<T>();
    });
    return summary("cuda_products");
}

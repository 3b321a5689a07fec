// Gates: one row after another. Included inside an ISA's namespace, after normalisation.h.

template <class T>
void gate(const GateArgs<T>& given) {
    using V = Vec<Compute<T>>;
    const GateArgs<T> args = given;  // a copy, which nothing that is written can be
    for (std::int64_t i = 0; i < args.rows; ++i)
        for_columns<T>(args.columns, [&](std::int64_t j, int n) {
            V a = gated(at(args.h, i, j, n), at(args.t, i, j, n), at(args.x, i, j, n));
            if (args.mask.data) a = a * at(args.mask, i, j, n);
            if (computes_itself<T> || args.out.data) write(a, args.out.data + i * args.out.stride + j, n);
            if (!computes_itself<T> && args.wide.data) write(a, args.wide.data + i * args.wide.stride + j, n);
        });
}

template <class T>
void gate_backward(const GateBackwardArgs<T>& given) {
    using V = Vec<Compute<T>>;
    const GateBackwardArgs<T> args = given;
    visit_type(args.activation, Activations{}, [&](auto activation) {
        using Activation = decltype(activation);
        for (std::int64_t i = 0; i < args.rows; ++i)
            for_columns<T>(args.columns, [&](std::int64_t j, int n) {
                const V g = at(args.gradient, i, j, n), t = at(args.t, i, j, n), rest = V(1) - t;
                const V h = at(args.h, i, j, n), x = at(args.x, i, j, n);
                V d_h = g * t;
                if constexpr (!std::is_same<Activation, Identity>::value)
                    d_h = times_derivative<Activation>(d_h, at(args.saved, i, j, n), args.saved_is_argument);
                write(d_h, args.d_h.data + i * args.d_h.stride + j, n);
                write(gate_slope(g, h, t, x), args.d_t.data + i * args.d_t.stride + j, n);
                write(g * rest, args.d_x.data + i * args.d_x.stride + j, n);
            });
    });
}

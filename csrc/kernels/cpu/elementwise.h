// Gates, dropout masks and losses: one row after another. Included inside an ISA's namespace, after normalisation.h.

template <class T>
void gate(const GateArgs<T>& args) {
    for (std::int64_t i = 0; i < args.rows; ++i)
        for_columns<T>(args.columns, [&](std::int64_t j, int n) {
            const Vec<T> t = at(args.t, i, j, n);
            Vec<T> a = multiply_add(t, at(args.h, i, j, n), (Vec<T>(1) - t) * at(args.x, i, j, n));
            if (args.mask.data) a = a * at(args.mask, i, j, n);
            a.store(args.out.data + i * args.out.stride + j, n);
        });
}

template <class T>
void gate_backward(const GateBackwardArgs<T>& args) {
    visit_type(args.activation, Activations{}, [&](auto activation) {
        using Activation = decltype(activation);
        for (std::int64_t i = 0; i < args.rows; ++i)
            for_columns<T>(args.columns, [&](std::int64_t j, int n) {
                const Vec<T> g = at(args.gradient, i, j, n), t = at(args.t, i, j, n), rest = Vec<T>(1) - t;
                const Vec<T> h = at(args.h, i, j, n), x = at(args.x, i, j, n);
                Vec<T> d_h = g * t;
                if constexpr (!std::is_same<Activation, Identity>::value)
                    d_h = d_h * derivative<Activation>(at(args.saved, i, j, n), args.saved_is_argument);
                d_h.store(args.d_h.data + i * args.d_h.stride + j, n);
                (g * (h - x) * t * rest).store(args.d_t.data + i * args.d_t.stride + j, n);
                (g * rest).store(args.d_x.data + i * args.d_x.stride + j, n);
            });
    });
}

template <class T>
void dropout(const DropoutArgs<T>& args) {
    const double kept = 1 / (1 - args.probability);
    const T multiplier = static_cast<T>(kept);
    // u < p as integers: words are uniform on [0, 2³²).
    const double threshold = args.probability * 4294967296.0;
    for (std::int64_t i = 0; i < args.rows; ++i) {
        const std::uint64_t row =
            static_cast<std::uint64_t>(args.first_row + i) * static_cast<std::uint64_t>(args.columns);
        T* out = args.out.data + i * args.out.stride;
        std::uint32_t words[4];
        std::uint64_t block = ~std::uint64_t{0};
        for (std::int64_t j = 0; j < args.columns; ++j) {
            const std::uint64_t index = row + static_cast<std::uint64_t>(j);
            if (index >> 2 != block) philox_block(args.key, block = index >> 2, words);
            out[j] = words[index & 3] < threshold ? T(0) : multiplier;
        }
    }
}

template <class T>
void loss(const LossArgs<T>& args) {
    visit_type(args.loss, Losses{}, [&](auto rule) {
        for (std::int64_t i = 0; i < args.rows; ++i) {
            const double scale =
                args.normaliser * (args.sample_weight ? static_cast<double>(args.sample_weight[i]) : 1.0);
            RowTarget<T> target;
            if (args.labels) target.label = args.labels + i;
            if (args.targets.data) target.values = args.targets.data + i * args.targets.stride;
            target.class_weight = args.class_weight;
            target.label_smoothing = args.label_smoothing;
            target.delta = args.delta;
            T* gradient = args.gradient.data ? args.gradient.data + i * args.gradient.stride : nullptr;
            const T* logits = args.logits.data + i * args.logits.stride;
            args.row_loss[i] = scale * decltype(rule)::row(logits, args.columns, target, scale, gradient);
        }
    });
}

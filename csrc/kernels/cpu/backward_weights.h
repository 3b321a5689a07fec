// residual_backward_weights: dW = Aᵀ·δ, one panel at a time, and the optimizer on it while it is in registers.
// Included inside an ISA's namespace.
//
// Invariant: rows are cut into stretches of `gradient_stretch`, whose sums are added in order. A stretch of a panel of
// δ stays in L1 while every row of W passes over it.

template <class Optimizer, class C, class Count>
RC_HD void update_vector(const Slot<C>& slot, std::int64_t at, const C* gradient, Count n, const Hyper<C>& hyper) {
    Vec<C> state[2];
    for (int s = 0; s < Optimizer::states; ++s) state[s] = Vec<C>::load(slot.state[s] + at, n);
    const Vec<C> w = Vec<C>::load(slot.value + at, n), g = Vec<C>::load(gradient, n);
    Optimizer::apply(w, g, state[0], state[1], hyper).store(slot.value + at, n);
    for (int s = 0; s < Optimizer::states; ++s) state[s].store(slot.state[s] + at, n);
}
// The optimizer on elements [at, at + size) of a slot, whichever way their gradient was made. What is written could be
// the slot or the hyperparameters, for all the compiler knows, were they not copies.
template <class Optimizer, class C>
__attribute__((noinline)) void update_elements(Slot<C> slot, std::int64_t at, const C* gradient, std::int64_t size,
                                               Hyper<C> hyper) {
    constexpr int lanes = Vec<C>::lanes;
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes)
        update_vector<Optimizer>(slot, at + i, gradient + i, std::integral_constant<int, lanes>(), hyper);
    if (i < size) update_vector<Optimizer>(slot, at + i, gradient + i, static_cast<int>(size - i), hyper);
}

// Sums of fewer rows are done before memory from L3 would be here.
constexpr std::int64_t worth_a_prefetch = 64;

// Where the stretches of a panel are added up, and what becomes of the sum: a gradient that is kept is added up in its
// own memory; one that an optimizer uses up in scratch. Both add in the same order.
template <class T>
struct KeepGradient {
    using C = Compute<T>;
    static RC_HD C* sum(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t size) {
        return args.gradient + panel * size;
    }
    static RC_HD void prefetch(const WeightsArgs<T>&, std::int64_t, std::int64_t, int) {}
    static RC_HD void finish(const WeightsArgs<T>&, std::int64_t, const C*, std::int64_t) {}
    static RC_HD Vec<C> bias_start(const WeightsArgs<T>& args, std::int64_t at, int n) {
        return args.accumulate ? read(args.bias_gradient + at, n) : Vec<C>();
    }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<C> g, int n) {
        g.store(args.bias_gradient + at, n);
    }
};
template <class T, class Optimizer>
struct UseGradient {
    using C = Compute<T>;
    static RC_HD C* sum(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t size) {
        return args.sums + (panel - args.first_panel) * size;
    }
    // What the update of rows [k, k + rows) of a panel will touch: the parameter, its states, the transpose.
    static RC_HD void prefetch(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t k, int rows) {
        constexpr std::int64_t width = 2 * lanes_of<T>;
        const std::int64_t at = (panel * args.inner + k) * width;
        prefetch_lines(args.weight.value + at, rows * width);
        for (int s = 0; s < Optimizer::states; ++s) prefetch_lines(args.weight.state[s] + at, rows * width);
        if constexpr (computes_itself<T>) {
            const T* to = args.operands.transposed + (k / width * args.columns + panel * width) * width + k % width;
            const std::int64_t columns = args.columns - panel * width;
            for (std::int64_t j = 0; j < (columns < width ? columns : width); ++j) prefetch_lines(to + j * width, 1);
        }
    }
    static RC_HD void finish(const WeightsArgs<T>& args, std::int64_t at, const C* sum, std::int64_t size) {
        update_elements<Optimizer>(args.weight, at, sum, size, *args.weight_hyper);
    }
    static RC_HD Vec<C> bias_start(const WeightsArgs<T>&, std::int64_t, int) { return Vec<C>(); }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<C> g, int n) {
        C gradient[Vec<C>::lanes];
        g.store(gradient);
        update_elements<Optimizer>(args.bias, at, gradient, n, *args.bias_hyper);
    }
};

// Σ δ of a stretch of rows in the columns of a vector: four short sums, added in order. They are made at once where all
// are there: each addition waits for the one before it in its sum.
template <class T, class Count>
RC_HD Vec<Compute<T>> stretch_of_bias(Rows<T> delta, std::int64_t rows, Count n) {
    constexpr std::int64_t short_sum = gradient_stretch / 4;
    Vec<Compute<T>> stretch;
    const auto at = [&](std::int64_t i) { return read(delta.data + i * delta.stride, n); };
    if (rows == gradient_stretch) {
        Vec<Compute<T>> first, second, third, fourth;
        for (std::int64_t i = 0; i < short_sum; ++i) {
            first = first + at(i);
            second = second + at(short_sum + i);
            third = third + at(2 * short_sum + i);
            fourth = fourth + at(3 * short_sum + i);
        }
        return stretch + first + second + third + fourth;
    }
    for (std::int64_t i = 0; i < rows;) {
        Vec<Compute<T>> sum;
        const std::int64_t stop = i + short_sum < rows ? i + short_sum : rows;
        for (; i < stop; ++i) sum = sum + at(i);
        stretch = stretch + sum;
    }
    return stretch;
}

template <class T, class Finish>
RC_HD void bias_gradient(const WeightsArgs<T>& args, std::int64_t column, const int (&lanes)[2]) {
    using V = Vec<Compute<T>>;
    using Whole = std::integral_constant<int, V::lanes>;
    for (int half = 0; half < 2; ++half) {
        const int n = lanes[half];
        if (n <= 0) return;
        const std::int64_t j = column + half * V::lanes;
        V total = Finish::bias_start(args, j, n);
        for (std::int64_t row = 0; row < args.rows; row += gradient_stretch) {
            const std::int64_t rows = args.rows - row < gradient_stretch ? args.rows - row : gradient_stretch;
            const Rows<T> delta{args.delta.data + row * args.delta.stride + j, args.delta.stride};
            total = total + (n == V::lanes ? stretch_of_bias(delta, rows, Whole()) : stretch_of_bias(delta, rows, n));
        }
        Finish::finish_bias(args, j, total, n);
    }
}

// What the products read of a panel of W that has changed: the panel itself, where it is a copy, and the transpose, in
// which a panel is some columns of each of its panels. Padding stays zero.
template <class T>
RC_HD void refresh_operands(const Compute<T>* weight_panel, const Operands<T>& operands, std::int64_t inner,
                            std::int64_t columns, std::int64_t column) {
    constexpr int width = 2 * lanes_of<T>;
    visit_panel_blocks<Compute<T>>(
        {weight_panel, width}, inner, columns, column,
        [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
            if constexpr (!computes_itself<T>)
                write_rows(block, rows, operands.panels + column * operand_rows<T>(inner), k, j - column);
            transpose<Compute<T>>(block);
            write_rows(block, outs, operands.transposed + k / width * operand_rows<T>(columns) * width, j, k % width);
        });
}

// What is done around each register tile of a panel's share. No lambdas: one that only prefetches is pure to the
// compiler, and so is dropped.
template <class T, class Finish>
struct PanelShare {
    static constexpr std::int64_t width = 2 * lanes_of<T>;
    const WeightsArgs<T>& args;
    std::int64_t panel, begin, end;  // of the stretch

    RC_HD Compute<T>* sum() const { return Finish::sum(args, panel, width * args.inner); }
    RC_HD void before(std::int64_t k, int rows) const {
        if (end == args.rows && end - begin >= worth_a_prefetch) Finish::prefetch(args, panel, k, rows);
    }
    RC_HD void after(std::int64_t k, int rows) const {
        if (end == args.rows) Finish::finish(args, (panel * args.inner + k) * width, sum() + k * width, rows * width);
    }
};

template <class T, class Finish>
RC_HD void weights_panels(const WeightsArgs<T>& args) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    for (Stretch<T> stretch(args); stretch.begin < args.rows; stretch.begin = stretch.end) {
        stretch.end = args.rows - stretch.begin <= gradient_stretch ? args.rows : stretch.begin + gradient_stretch;
        stretch.take_rows();
        for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
            stretch.column = panel * width;
            for (int half = 0; half < 2; ++half) {
                const std::int64_t left = args.columns - stretch.column - half * lanes_of<T>;
                stretch.lanes[half] = left > lanes_of<T> ? lanes_of<T> : left < 0 ? 0 : static_cast<int>(left);
            }
            stretch.take_panel();
            const PanelShare<T, Finish> share{args, panel, stretch.begin, stretch.end};
            add_stretch(stretch, share.sum(), stretch.begin == 0 && !args.accumulate, share);
            if (stretch.end < args.rows) continue;
            if (args.has_bias) bias_gradient<T, Finish>(args, stretch.column, stretch.lanes);
            if (!args.gradient)
                refresh_operands(args.weight.value + panel * width * args.inner, args.operands, args.inner,
                                 args.columns, stretch.column);
        }
    }
}

template <class T>
void backward_weights(const WeightsArgs<T>& args) {
    [[maybe_unused]] const MatrixUnit<T> unit{};
    if (args.gradient) return weights_panels<T, KeepGradient<T>>(args);
    if (!permits(args.permission)) return;
    visit_type(args.optimizer, Optimizers{},
               [&](auto rule) { weights_panels<T, UseGradient<T, decltype(rule)>>(args); });
}

template <class T>
void update(const UpdateArgs<T>& args) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    if (!permits(args.permission)) return;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
            const std::int64_t base = panel * width * args.inner;
            update_elements<decltype(rule)>(args.weight, base, args.gradient + base, width * args.inner, *args.hyper);
            refresh_operands(args.weight.value + base, args.operands, args.inner, args.columns, panel * width);
        }
    });
}

template <class T>
void update_vectors(const UpdateVectorsArgs<T>& args) {
    if (!permits(args.permission)) return;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (int v = 0; v < args.count; ++v) {
            const UpdatedVector<T>& vector = args.vectors[v];
            update_elements<decltype(rule)>(vector.slot, 0, vector.gradient, vector.size, *vector.hyper);
        }
    });
}

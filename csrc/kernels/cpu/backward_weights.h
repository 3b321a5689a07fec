// residual_backward_weights: dW = Aᵀ·δ, one panel at a time, and the optimizer on it while it is in registers.
// Included inside an ISA's namespace.
//
// Invariant: rows are cut into stretches of `gradient_stretch`, whose sums are added in order. A stretch of a panel of
// δ stays in L1 while every row of W passes over it.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

// The optimizer on elements [at, at + size) of a slot, whichever way their gradient was made.
template <class Optimizer, class T>
__attribute__((noinline)) void update_elements(const Slot<T>& slot, std::int64_t at, const T* gradient,
                                               std::int64_t size, const Hyper<T>& hyper) {
    constexpr int lanes = Vec<T>::lanes;
    for (std::int64_t i = 0; i < size; i += lanes) {
        const int n = size - i < lanes ? static_cast<int>(size - i) : lanes;
        Vec<T> state[2];
        for (int s = 0; s < Optimizer::states; ++s) state[s] = Vec<T>::load(slot.state[s] + at + i, n);
        const Vec<T> w = Vec<T>::load(slot.value + at + i, n), g = Vec<T>::load(gradient + i, n);
        Optimizer::apply(w, g, state[0], state[1], hyper).store(slot.value + at + i, n);
        for (int s = 0; s < Optimizer::states; ++s) state[s].store(slot.state[s] + at + i, n);
    }
}

// Where the stretches of a panel are added up, and what becomes of the sum: a gradient that is kept is added up in its
// own memory; one that an optimizer uses up in scratch. Both add in the same order.
template <class T>
struct KeepGradient {
    static RC_HD T* sum(const WeightsArgs<T>& args, std::int64_t base) { return args.gradient + base; }
    static RC_HD void finish(const WeightsArgs<T>&, std::int64_t, const T*, std::int64_t) {}
    static RC_HD Vec<T> bias_start(const WeightsArgs<T>& args, std::int64_t at, int n) {
        return args.accumulate ? Vec<T>::load(args.bias_gradient + at, n) : Vec<T>();
    }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g, int n) {
        g.store(args.bias_gradient + at, n);
    }
};
template <class T, class Optimizer>
struct UseGradient {
    static RC_HD T* sum(const WeightsArgs<T>& args, std::int64_t) { return args.scratch; }
    static RC_HD void finish(const WeightsArgs<T>& args, std::int64_t at, const T* sum, std::int64_t size) {
        update_elements<Optimizer>(args.weight, at, sum, size, args.weight_hyper);
    }
    static RC_HD Vec<T> bias_start(const WeightsArgs<T>&, std::int64_t, int) { return Vec<T>(); }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g, int n) {
        T gradient[Vec<T>::lanes];
        g.store(gradient);
        update_elements<Optimizer>(args.bias, at, gradient, n, args.bias_hyper);
    }
};

// acc += Σ_rows a(row, k + i)·δ(row, columns) over one stretch of rows.
template <class T, int MR>
RC_HD void accumulate_rows(Rows<T> a, Rows<T> delta, std::int64_t k, std::int64_t column, const int (&lanes)[2],
                           std::int64_t begin, std::int64_t end, Accumulators<T, MR>& acc) {
    const T* from = a.data + begin * a.stride + k;
    const T* d = delta.data + begin * delta.stride + column;
    if (lanes[1] == Vec<T>::lanes) return accumulate<T, MR>(from, 1, a.stride, d, delta.stride, end - begin, acc);
    // A partial panel: columns beyond the last belong to someone else.
    for (std::int64_t row = begin; row < end; ++row, from += a.stride, d += delta.stride) {
        const Vec<T> left = Vec<T>::load(d, lanes[0]), right = Vec<T>::load(d + Vec<T>::lanes, lanes[1]);
        each_row<MR>([&](int i) {
            const Vec<T> x(from[i]);
            acc.at[i][0] = multiply_add(x, left, acc.at[i][0]);
            acc.at[i][1] = multiply_add(x, right, acc.at[i][1]);
        });
    }
}

// One stretch of MR rows of a panel into `sum`: written where the stretch is the first, else added.
template <class T, int MR>
__attribute__((noinline)) void sum_rows(T* sum, bool first, Rows<T> a, Rows<T> delta, std::int64_t k,
                                        std::int64_t column, const int (&lanes)[2], std::int64_t begin,
                                        std::int64_t end) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    if (!first)  // it may be as far as L3: asked for now, it is here when the stretch is done
        for (int i = 0; i < MR; ++i)
            for (std::size_t line = 0; line < width * sizeof(T); line += 64)
                __builtin_prefetch(reinterpret_cast<const char*>(sum + i * width) + line, 1);
    Accumulators<T, MR> acc;
    accumulate_rows<T, MR>(a, delta, k, column, lanes, begin, end, acc);
    each_row<MR>([&](int i) {
        T* to = sum + i * width;
        if (!first) {
            acc.at[i][0] = Vec<T>::load(to) + acc.at[i][0];
            acc.at[i][1] = Vec<T>::load(to + Vec<T>::lanes) + acc.at[i][1];
        }
        acc.at[i][0].store(to);
        acc.at[i][1].store(to + Vec<T>::lanes);
    });
}

template <class T, class Finish>
struct WeightsTile {
    const WeightsArgs<T>& args;
    std::int64_t column, base;  // first column of the panel, and where the panel begins
    int lanes[2];
    std::int64_t begin, end;  // rows of this stretch

    template <int MR>
    RC_HD void run(std::int64_t k) {
        constexpr std::int64_t width = 2 * Vec<T>::lanes;
        T* sum = Finish::sum(args, base) + k * width;
        const bool first = begin == 0 && !args.accumulate;
        sum_rows<T, MR>(sum, first, args.a, args.delta, k, column, lanes, begin, end);
        if (end == args.rows) Finish::finish(args, base + k * width, sum, MR * width);
    }
};

template <class T, class Finish>
RC_HD void bias_gradient(const WeightsArgs<T>& args, std::int64_t column, const int (&lanes)[2]) {
    constexpr std::int64_t short_sum = 32;
    for (int half = 0; half < 2; ++half) {
        if (lanes[half] <= 0) return;
        const std::int64_t j = column + half * Vec<T>::lanes;
        Vec<T> total = Finish::bias_start(args, j, lanes[half]), stretch;
        // Three levels of sums, cut by the row's number: short ones, stretches, the total.
        for (std::int64_t row = 0; row < args.rows;) {
            Vec<T> sum;
            const std::int64_t stop = row + short_sum < args.rows ? row + short_sum : args.rows;
            for (; row < stop; ++row)
                sum = sum + Vec<T>::load(args.delta.data + row * args.delta.stride + j, lanes[half]);
            stretch = stretch + sum;
            if (row % gradient_stretch == 0 || row == args.rows) total = total + stretch, stretch = Vec<T>();
        }
        Finish::finish_bias(args, j, total, lanes[half]);
    }
}

// Panel p of W, (inner, panel), into the columns that it is in the packed transpose: a transpose of lane blocks.
template <class T>
RC_HD void refresh_transposed(const T* weight_panel, T* transposed, std::int64_t inner, std::int64_t columns,
                              std::int64_t column) {
    constexpr int lanes = Vec<T>::lanes, width = 2 * lanes;
    for (std::int64_t k = 0; k < inner; k += lanes)
        for (int half = 0; half < 2; ++half) {
            const std::int64_t j = column + half * lanes;
            if (j >= columns) continue;
            Vec<T> block[lanes];
            const int rows = inner - k < lanes ? static_cast<int>(inner - k) : lanes;
            for (int i = 0; i < rows; ++i) block[i] = Vec<T>::load(weight_panel + (k + i) * width + half * lanes);
            transpose<T>(block);
            // Row j of Wᵀ: panel k / width, and within it columns k % width onwards; padding stays zero.
            T* to = transposed + k / width * columns * width + k % width;
            const int outs = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
            for (int i = 0; i < outs; ++i) block[i].store(to + (j + i) * width);
        }
}

template <class T, class Finish>
RC_HD void weights_panels(const WeightsArgs<T>& args) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
        WeightsTile<T, Finish> tile{args, panel * width, panel * width * args.inner, {0, 0}, 0, 0};
        for (int half = 0; half < 2; ++half) {
            const std::int64_t left = args.columns - tile.column - half * Vec<T>::lanes;
            tile.lanes[half] = left > Vec<T>::lanes ? Vec<T>::lanes : left < 0 ? 0 : static_cast<int>(left);
        }
        for (tile.begin = 0; tile.begin < args.rows; tile.begin = tile.end) {
            tile.end = args.rows - tile.begin <= gradient_stretch ? args.rows : tile.begin + gradient_stretch;
            visit_blocks<RC_TILE_ROWS>(args.inner, tile);
        }
        if (args.has_bias) bias_gradient<T, Finish>(args, tile.column, tile.lanes);
        if (!args.gradient)
            refresh_transposed(args.weight.value + tile.base, args.transposed, args.inner, args.columns, tile.column);
    }
}

template <class T>
void backward_weights(const WeightsArgs<T>& args) {
    if (args.gradient) return weights_panels<T, KeepGradient<T>>(args);
    visit_type(args.optimizer, Optimizers{},
               [&](auto rule) { weights_panels<T, UseGradient<T, decltype(rule)>>(args); });
}

template <class T>
void update(const UpdateArgs<T>& args) {
    constexpr std::int64_t width = 2 * Vec<T>::lanes;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
            const std::int64_t base = panel * width * args.inner;
            update_elements<decltype(rule)>(args.weight, base, args.gradient + base, width * args.inner, args.hyper);
            refresh_transposed(args.weight.value + base, args.transposed, args.inner, args.columns, panel * width);
        }
    });
}

template <class T>
void update_vector(const UpdateVectorArgs<T>& args) {
    visit_type(args.optimizer, Optimizers{},
               [&](auto rule) { update_elements<decltype(rule)>(args.slot, 0, args.gradient, args.size, args.hyper); });
}

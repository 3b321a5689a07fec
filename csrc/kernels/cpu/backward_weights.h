// residual_backward_weights: dW = Aᵀ·δ, one panel at a time, and the optimizer on it while it is in registers.
// Included inside an ISA's namespace.
//
// Invariant: rows are cut into stretches of `longest_sum`, whose sums are added in order; the cut depends on the number
// of rows alone.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

// Applies an optimizer to two vectors of parameters at `at`.
template <class Optimizer, class T>
RC_HD void update_vector_at(const Slot<T>& slot, std::int64_t at, Vec<T> gradient, const Hyper<T>& hyper, int n) {
    Vec<T> state[2];
    for (int s = 0; s < Optimizer::states; ++s) state[s] = Vec<T>::load(slot.state[s] + at, n);
    const Vec<T> w = Vec<T>::load(slot.value + at, n);
    Optimizer::apply(w, gradient, state[0], state[1], hyper).store(slot.value + at, n);
    for (int s = 0; s < Optimizer::states; ++s) state[s].store(slot.state[s] + at, n);
}

// What becomes of a gradient vector: kept, added to what is there, or used up by an optimizer.
template <class T>
struct KeepGradient {
    static RC_HD void finish(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g) {
        if (args.accumulate) g = g + Vec<T>::load(args.gradient + at);
        g.store(args.gradient + at);
    }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g, int n) {
        if (args.accumulate) g = g + Vec<T>::load(args.bias_gradient + at, n);
        g.store(args.bias_gradient + at, n);
    }
};
template <class T, class Optimizer>
struct UseGradient {
    static RC_HD void finish(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g) {
        update_vector_at<Optimizer>(args.weight, at, g, args.weight_hyper, Vec<T>::lanes);
    }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<T> g, int n) {
        update_vector_at<Optimizer>(args.bias, at, g, args.bias_hyper, n);
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
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const Vec<T> x(from[i]);
            acc.at[i][0] = acc.at[i][0] + x * left;
            acc.at[i][1] = acc.at[i][1] + x * right;
        }
    }
}

template <class T, int MR>
__attribute__((noinline)) void sum_rows(Accumulators<T, MR>& acc, Rows<T> a, Rows<T> delta, std::int64_t k,
                                        std::int64_t column, const int (&lanes)[2], std::int64_t begin,
                                        std::int64_t end) {
    Accumulators<T, MR> sum;
    accumulate_rows<T, MR>(a, delta, k, column, lanes, begin, end, sum);
    acc = sum;
}

template <class T, class Finish>
struct WeightsTile {
    const WeightsArgs<T>& args;
    std::int64_t column, base;  // first column of the panel, and where the panel begins
    int lanes[2];
    std::int64_t begin, end;  // rows of this stretch

    template <int MR>
    RC_HD void run(std::int64_t k) {
        Accumulators<T, MR> acc;
        sum_rows<T, MR>(acc, args.a, args.delta, k, column, lanes, begin, end);
        finish_rows(acc.at, MR, k);
    }

    __attribute__((noinline)) void finish_rows(const Vec<T> (*sum)[2], int rows, std::int64_t k) {
        const bool first = begin == 0, last = end == args.rows;
        for (int i = 0; i < rows; ++i)
            for (int half = 0; half < 2; ++half) {
                const std::int64_t at = (k + i) * 2 * Vec<T>::lanes + half * Vec<T>::lanes;
                Vec<T> g = sum[i][half];
                if (!first) g = Vec<T>::load(args.scratch + at) + g;
                if (last)
                    Finish::finish(args, base + at, g);
                else
                    g.store(args.scratch + at);
            }
    }
};

template <class T, class Finish>
RC_HD void bias_gradient(const WeightsArgs<T>& args, std::int64_t column, const int (&lanes)[2]) {
    constexpr std::int64_t short_sum = 32;
    for (int half = 0; half < 2; ++half) {
        if (lanes[half] <= 0) return;
        const std::int64_t j = column + half * Vec<T>::lanes;
        Vec<T> total, stretch;
        // Three levels of sums, cut by the row's number: short ones, stretches, the total.
        for (std::int64_t row = 0; row < args.rows;) {
            Vec<T> sum;
            const std::int64_t stop = row + short_sum < args.rows ? row + short_sum : args.rows;
            for (; row < stop; ++row)
                sum = sum + Vec<T>::load(args.delta.data + row * args.delta.stride + j, lanes[half]);
            stretch = stretch + sum;
            if (row % longest_sum == 0) total = total + stretch, stretch = Vec<T>();
        }
        Finish::finish_bias(args, j, total + stretch, lanes[half]);
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
            tile.end = args.rows - tile.begin < longest_sum ? args.rows : tile.begin + longest_sum;
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
    constexpr std::int64_t lanes = Vec<T>::lanes, width = 2 * lanes;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
            const std::int64_t base = panel * width * args.inner;
            for (std::int64_t at = base; at < base + width * args.inner; at += lanes)
                update_vector_at<decltype(rule)>(args.weight, at, Vec<T>::load(args.gradient + at), args.hyper,
                                                 static_cast<int>(lanes));
            refresh_transposed(args.weight.value + base, args.transposed, args.inner, args.columns, panel * width);
        }
    });
}

template <class T>
void update_vector(const UpdateVectorArgs<T>& args) {
    constexpr std::int64_t lanes = Vec<T>::lanes;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (std::int64_t at = 0; at < args.size; at += lanes) {
            const int n = args.size - at < lanes ? static_cast<int>(args.size - at) : static_cast<int>(lanes);
            update_vector_at<decltype(rule)>(args.slot, at, Vec<T>::load(args.gradient + at, n), args.hyper, n);
        }
    });
}

// residual_backward_weights: dW = Aᵀ·δ, one panel at a time, and the optimizer on it while it is in registers.
// Included inside an ISA's namespace.
//
// Invariant: rows are cut into stretches of `gradient_stretch`, whose sums are added in order. A stretch of a panel of
// δ stays in L1 while every row of W passes over it.

template <class T>
using WeightsArgs = BackwardWeightsArgs<T>;

// The optimizer on elements [at, at + size) of a slot, whichever way their gradient was made.
template <class Optimizer, class C>
__attribute__((noinline)) void update_elements(const Slot<C>& slot, std::int64_t at, const C* gradient,
                                               std::int64_t size, const Hyper<C>& hyper) {
    constexpr int lanes = Vec<C>::lanes;
    for (std::int64_t i = 0; i < size; i += lanes) {
        const int n = size - i < lanes ? static_cast<int>(size - i) : lanes;
        Vec<C> state[2];
        for (int s = 0; s < Optimizer::states; ++s) state[s] = Vec<C>::load(slot.state[s] + at + i, n);
        const Vec<C> w = Vec<C>::load(slot.value + at + i, n), g = Vec<C>::load(gradient + i, n);
        Optimizer::apply(w, g, state[0], state[1], hyper).store(slot.value + at + i, n);
        for (int s = 0; s < Optimizer::states; ++s) state[s].store(slot.state[s] + at + i, n);
    }
}

// Sums of fewer rows are done before memory from L3 would be here.
constexpr std::int64_t worth_a_prefetch = 64;

// Asks for memory that will be written.
template <class C>
RC_HD void prefetch_lines(const C* from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / static_cast<std::int64_t>(sizeof(C))) __builtin_prefetch(from + i, 1);
}

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
        update_elements<Optimizer>(args.weight, at, sum, size, args.weight_hyper);
    }
    static RC_HD Vec<C> bias_start(const WeightsArgs<T>&, std::int64_t, int) { return Vec<C>(); }
    static RC_HD void finish_bias(const WeightsArgs<T>& args, std::int64_t at, Vec<C> g, int n) {
        C gradient[Vec<C>::lanes];
        g.store(gradient);
        update_elements<Optimizer>(args.bias, at, gradient, n, args.bias_hyper);
    }
};

// One stretch of rows of A and of one panel of δ, as the products take them. Rows [begin, end) of the batch.
template <class T>
struct Stretch {
    const WeightsArgs<T>& args;
    std::int64_t begin = 0, end = 0, column = 0;
    int lanes[2] = {0, 0};

    explicit Stretch(const WeightsArgs<T>& args) : args(args) {}

    void take_rows() {}
    void take_panel() {
        delta_ = {args.delta.data + begin * args.delta.stride + column, args.delta.stride};
        if (lanes[0] == Vec<T>::lanes && (lanes[1] == Vec<T>::lanes || lanes[1] == 0)) return;
        // Columns beyond the last belong to someone else: a copy has zeros there.
        T* to = padded_;
        for (std::int64_t row = begin; row < end; ++row, to += 2 * Vec<T>::lanes)
            for (int v = 0; v < 2; ++v)
                read(args.delta.data + row * args.delta.stride + column + v * Vec<T>::lanes, lanes[v])
                    .store(to + v * Vec<T>::lanes);
        delta_ = {padded_, 2 * Vec<T>::lanes};
    }
    // acc += Σ_rows a(row, k + i)·δ(row, columns).
    template <int MR, int V>
    RC_HD void add_to(Accumulators<T, MR, V>& acc, std::int64_t k) const {
        accumulate<MR, V>(args.a.data + begin * args.a.stride + k, 1, args.a.stride, delta_.data, delta_.stride,
                          end - begin, acc, Ahead{MR, 0});
    }

private:
    Rows<T> delta_;
    alignas(64) T padded_[gradient_stretch * 2 * Vec<T>::lanes];
};

// Pairs along the rows: two rows are interleaved, a last odd one with zeros.
template <>
struct Stretch<bfloat16> {
    const WeightsArgs<bfloat16>& args;
    std::int64_t begin = 0, end = 0, column = 0;
    int lanes[2] = {0, 0};

    explicit Stretch(const WeightsArgs<bfloat16>& args) : args(args) {}

    void take_rows() const { interleave(args.a, 0, args.inner, args.inner, args.pairs, pair_stride(args.inner)); }
    void take_panel() const {
        interleave(args.delta, column, lanes[0] + lanes[1], 2 * word_lanes, panel_pairs(), 2 * word_lanes);
    }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<bfloat16, MR, V>& acc, std::int64_t k) const {
        accumulate_pairs<MR, V>(args.pairs + 2 * k, 2, 2 * pair_stride(args.inner), panel_pairs(), 4 * word_lanes,
                                (end - begin + 1) / 2, acc);
    }

private:
    bfloat16* panel_pairs() const { return args.pairs + gradient_stretch * pair_stride(args.inner); }
    // Columns [first, first + columns) of the stretch, and zeros up to `width`, in whole vectors. Strides of `to` and
    // widths count pairs.
    void interleave(Rows<bfloat16> from, std::int64_t first, std::int64_t columns, std::int64_t width, bfloat16* to,
                    std::int64_t stride) const {
        for (std::int64_t row = begin; row < end; row += 2, to += 2 * stride) {
            const bfloat16* low = from.data + row * from.stride + first;
            const bfloat16* high = low + from.stride;
            for (std::int64_t j = 0; j < width; j += word_lanes) {
                const int n = columns - j < word_lanes ? static_cast<int>(columns - j) : word_lanes;
                const Words above = row + 1 < end ? read_words(high + j, n) : Words{};
                write_pairs(read_words(low + j, n) | above << 16, to + 2 * j);
            }
        }
    }
};

// One stretch of MR rows of a panel into `sum`: written where the stretch is the first, else added. Columns that do not
// exist are zeros.
template <class T, int MR, int V>
__attribute__((noinline)) void sum_rows(Compute<T>* sum, bool first, const Stretch<T>& stretch, std::int64_t k) {
    constexpr std::int64_t lanes = lanes_of<T>, width = 2 * lanes;
    if (!first)  // it may be as far as L3: asked for now, it is here when the stretch is done
        prefetch_lines(sum, MR * width);
    Accumulators<T, MR, V> acc;
    stretch.template add_to<MR, V>(acc, k);
    each_row<MR>([&](int i) {
        Compute<T>* to = sum + i * width;
        each_row<V>([&](int v) {
            if (!first) acc.at[i][v] = read(to + v * lanes) + acc.at[i][v];
            acc.at[i][v].store(to + v * lanes);
        });
        if (V == 1 && first) Vec<Compute<T>>().store(to + lanes);
    });
}

template <class T, class Finish>
struct WeightsTile {
    const WeightsArgs<T>& args;
    const Stretch<T>& stretch;
    std::int64_t panel;

    template <int MR>
    RC_HD void run(std::int64_t k) {
        constexpr std::int64_t width = 2 * lanes_of<T>;
        Compute<T>* sum = Finish::sum(args, panel, width * args.inner) + k * width;
        const bool first = stretch.begin == 0 && !args.accumulate;
        if (stretch.end == args.rows && stretch.end - stretch.begin >= worth_a_prefetch)
            Finish::prefetch(args, panel, k, MR);
        if (stretch.lanes[1] > 0)
            sum_rows<T, MR, 2>(sum, first, stretch, k);
        else
            sum_rows<T, MR, 1>(sum, first, stretch, k);
        if (stretch.end == args.rows) Finish::finish(args, (panel * args.inner + k) * width, sum, MR * width);
    }
};

template <class T, class Finish>
RC_HD void bias_gradient(const WeightsArgs<T>& args, std::int64_t column, const int (&lanes)[2]) {
    using V = Vec<Compute<T>>;
    constexpr std::int64_t short_sum = 32;
    for (int half = 0; half < 2; ++half) {
        if (lanes[half] <= 0) return;
        const std::int64_t j = column + half * V::lanes;
        V total = Finish::bias_start(args, j, lanes[half]), stretch;
        // Three levels of sums, cut by the row's number: short ones, stretches, the total.
        for (std::int64_t row = 0; row < args.rows;) {
            V sum;
            const std::int64_t stop = row + short_sum < args.rows ? row + short_sum : args.rows;
            for (; row < stop; ++row) sum = sum + read(args.delta.data + row * args.delta.stride + j, lanes[half]);
            stretch = stretch + sum;
            if (row % gradient_stretch == 0 || row == args.rows) total = total + stretch, stretch = V();
        }
        Finish::finish_bias(args, j, total, lanes[half]);
    }
}

// use(block, k, j, rows, columns) for the blocks of lanes × lanes of a panel of W (inner, columns) that begins at
// `column`: rows k onwards, columns j onwards, and how many of them exist. In a whole block both are constants.
template <class C, class Use>
RC_HD void visit_panel_blocks(const C* panel, std::int64_t inner, std::int64_t columns, std::int64_t column, Use use) {
    constexpr int lanes = Vec<C>::lanes, width = 2 * lanes;
    using Whole = std::integral_constant<int, lanes>;
    for (std::int64_t k = 0; k < inner; k += lanes)
        for (std::int64_t j = column; j < column + width && j < columns; j += lanes) {
            const C* from = panel + k * width + j - column;
            Vec<C> block[lanes];
            if (inner - k >= lanes && columns - j >= lanes) {
                each_row<lanes>([&](int i) { block[i] = read(from + i * width); });
                use(block, k, j, Whole(), Whole());
                continue;
            }
            const int rows = inner - k < lanes ? static_cast<int>(inner - k) : lanes;
            for (int i = 0; i < rows; ++i) block[i] = read(from + i * width);
            use(block, k, j, rows, columns - j < lanes ? static_cast<int>(columns - j) : lanes);
        }
}

// What the products read of a panel of W that has changed. In the transpose a panel is some columns of each of its
// panels; row j of it begins in panel k / width at column k % width. Padding stays zero.
template <class T>
RC_HD void refresh_operands(const T* weight_panel, const Operands<T>& operands, std::int64_t inner,
                            std::int64_t columns, std::int64_t column) {
    constexpr int width = 2 * Vec<T>::lanes;
    visit_panel_blocks(weight_panel, inner, columns, column,
                       [&](auto& block, std::int64_t k, std::int64_t j, auto, auto outs) {
                           transpose<T>(block);
                           T* to = operands.transposed + (k / width * columns + j) * width + k % width;
                           for (int i = 0; i < outs; ++i) block[i].store(to + i * width);
                       });
}

// The same into pairs of rows, and the panel itself. Rows and columns beyond the last are zeros.
RC_HD void refresh_operands(const float* weight_panel, const Operands<bfloat16>& operands, std::int64_t inner,
                            std::int64_t columns, std::int64_t column) {
    constexpr int width = 2 * Vec<float>::lanes;
    bfloat16* panel = operands.panels + column * operand_rows<bfloat16>(inner);
    visit_panel_blocks(
        weight_panel, inner, columns, column, [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
            for (int i = 0; i < rows; i += 2)
                write_pairs(pairs_of(block[i], block[i + 1]), panel + (k + i) * width + 2 * (j - column));
            transpose<float>(block);
            bfloat16* to = operands.transposed + (k / width * operand_rows<bfloat16>(columns) + j) * width;
            for (int i = 0; i < outs; i += 2)
                write_pairs(pairs_of(block[i], block[i + 1]), to + i * width + 2 * (k % width));
        });
}

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
            WeightsTile<T, Finish> tile{args, stretch, panel};
            visit_blocks<RC_TILE_ROWS>(0, args.inner, tile);
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
    if (args.gradient) return weights_panels<T, KeepGradient<T>>(args);
    visit_type(args.optimizer, Optimizers{},
               [&](auto rule) { weights_panels<T, UseGradient<T, decltype(rule)>>(args); });
}

template <class T>
void update(const UpdateArgs<T>& args) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    visit_type(args.optimizer, Optimizers{}, [&](auto rule) {
        for (std::int64_t panel = args.first_panel; panel < args.last_panel; ++panel) {
            const std::int64_t base = panel * width * args.inner;
            update_elements<decltype(rule)>(args.weight, base, args.gradient + base, width * args.inner, args.hyper);
            refresh_operands(args.weight.value + base, args.operands, args.inner, args.columns, panel * width);
        }
    });
}

template <class T>
void update_vector(const UpdateVectorArgs<T>& args) {
    visit_type(args.optimizer, Optimizers{},
               [&](auto rule) { update_elements<decltype(rule)>(args.slot, 0, args.gradient, args.size, args.hyper); });
}

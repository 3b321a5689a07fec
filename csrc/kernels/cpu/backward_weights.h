// residual_backward_weights: dW = Aᵀ·δ, one panel at a time, and the optimizer on it while it is in registers.
// Included inside an ISA's namespace.
//
// Invariant: an element's sum depends on its row, its column, and the rows of the batch in their order, never on what a
// call has of them beyond stretches of `gradient_stretch`. A stretch of a panel of δ stays in L1 while every row of W
// passes over it.

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

// Sums of fewer rows are done before memory from L3 would be here; on a matrix unit, asking for what an update writes
// costs more than waiting. Of short vectors it would be some 5 % of a step's instructions.
constexpr std::int64_t worth_a_prefetch = finishes_blocks ? 4 * gradient_stretch : 64;

// Where the stretches of a panel are added up, and what becomes of the sum: a gradient that is kept is added up in its
// own memory; one that an optimizer uses up in scratch, which is a block's where all rows are summed at once. Both add
// in the same order.
template <class T>
struct KeepGradient {
    using C = Compute<T>;
    static RC_HD C* sum(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t, std::int64_t size) {
        return args.gradient + panel * size;
    }
    static constexpr bool updates = false;
    static RC_HD Soon soon(const WeightsArgs<T>&, std::int64_t, std::int64_t, int) { return {}; }
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
    static RC_HD C* sum(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t first, std::int64_t size) {
        return args.sums + (panel - first) * size;
    }
    static constexpr bool updates = true;
    // What the update of rows [k, k + rows) of a panel will touch: the parameter, its states, the operands.
    static RC_HD Soon soon(const WeightsArgs<T>& args, std::int64_t panel, std::int64_t k, int rows) {
        constexpr std::int64_t width = 2 * lanes_of<T>;
        const std::int64_t at = (panel * args.inner + k) * width;
        Soon soon;
        soon.add(args.weight.value + at, rows * width);
        for (int s = 0; s < Optimizer::states; ++s) soon.add(args.weight.state[s] + at, rows * width);
        // Blocks of the transpose that rows begin in; they are refreshed with the last of their rows, or later.
        const std::int64_t block = (k + width - 1) / width;
        if constexpr (finishes_blocks) {
            soon.add(args.operands.panels + (panel * operand_rows<T>(args.inner) + k) * width, rows * width);
            soon.add(args.operands.transposed + (block * operand_rows<T>(args.columns) + panel * width) * width,
                     width * width);
        } else if constexpr (computes_itself<T>) {
            const std::int64_t columns = args.columns - panel * width;
            if (block * width < k + rows)
                soon.add(args.operands.transposed + (block * args.columns + panel * width) * width,
                         (columns < width ? columns : width) * width);
        }
        return soon;
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

// The columns of the panel whose last rows the stretch has.
template <class T, class Finish>
RC_HD void bias_gradient(const WeightsArgs<T>& args, const Stretch<T>& stretch) {
    using V = Vec<Compute<T>>;
    using Whole = std::integral_constant<int, V::lanes>;
    for (int half = 0; half < 2; ++half) {
        const int n = stretch.lanes[half];
        if (n <= 0) return;
        const std::int64_t j = stretch.column + half * V::lanes;
        V total = Finish::bias_start(args, j, n);
        for (std::int64_t row = 0; row < args.rows; row += gradient_stretch) {
            const std::int64_t rows = args.rows - row < gradient_stretch ? args.rows - row : gradient_stretch;
            const Rows<T> delta{args.delta.data + row * args.delta.stride + j, args.delta.stride};
            total = total + (n == V::lanes ? stretch_of_bias(delta, rows, Whole()) : stretch_of_bias(delta, rows, n));
        }
        Finish::finish_bias(args, j, total, n);
    }
}
// On a matrix unit, which adds what is laid out of the panel to `sum`, as wide as the panel.
template <class T, class Finish>
RC_HD void add_to_bias_gradient(const WeightsArgs<T>& args, const Stretch<T>& stretch, Compute<T>* sum) {
    using V = Vec<Compute<T>>;
    if (stretch.begin == 0 && args.accumulate)
        for (int half = 0; half < 2; ++half) {
            const int n = stretch.lanes[half];
            const std::int64_t j = stretch.column + half * V::lanes;
            (n > 0 ? Finish::bias_start(args, j, n) : V()).store(sum + half * V::lanes);
        }
    stretch.add_sum_of_rows(sum, stretch.begin == 0 && !args.accumulate);
}
template <class T, class Finish>
RC_HD void finish_bias_gradient(const WeightsArgs<T>& args, const Stretch<T>& stretch, const Compute<T>* sum) {
    using V = Vec<Compute<T>>;
    for (int half = 0; half < 2; ++half)
        if (stretch.lanes[half] > 0)
            Finish::finish_bias(args, stretch.column + half * V::lanes, V::load(sum + half * V::lanes),
                                stretch.lanes[half]);
}

#if defined(__AVX512BF16__)
// The same rows of a panel as the operands have them: of 32 rows of 32, which begin at a multiple of 32. `packed` makes
// of a row of numbers what they are kept as.
template <class Packed>
RC_HD void refresh_block(const float* w, bfloat16* panel, bfloat16* transposed, Packed packed) {
    constexpr int width = 2 * word_lanes;
    each_row<2>([&](int half) {
        Vec<float> rows[word_lanes];
        each_row<word_lanes>(
            [&](int i) { rows[i].v = (Vec<float>::Native)packed(read_both(w + (half * word_lanes + i) * width)); });
        each_row<word_lanes / 2>([&](int i) {
            Words low, high;
            interleave((Words)rows[2 * i].v, (Words)rows[2 * i + 1].v, low, high);
            bfloat16* to = panel + (half * word_lanes + 2 * i) * width;
            write_pairs(low, to);
            write_pairs(high, to + width);
        });
        transpose<float>(rows);
        each_row<word_lanes>([&](int i) { write_pairs((Words)rows[i].v, transposed + 2 * i * width + half * width); });
    });
}
__attribute__((noinline)) void refresh_block(const float* w, bfloat16* panel, bfloat16* transposed) {
    refresh_block(w, panel, transposed, [](Both<float> x) { return rounded_both(x.low, x.high); });
}
#if defined(RC_TILE_UNIT)
__attribute__((noinline)) void refresh_block(const float* w, bfloat16x2* panel, bfloat16x2* transposed) {
    const auto of_plane = [&](int p, auto packed) {
        refresh_block(w, reinterpret_cast<bfloat16*>(panel) + p * plane * sums_width,
                      reinterpret_cast<bfloat16*>(transposed) + p * plane * sums_width, packed);
    };
    of_plane(0, [](Both<float> x) { return halves_of_both(x).high; });
    of_plane(1, [](Both<float> x) { return halves_of_both(x).low; });
}
#endif
#endif

// What the products read of rows [first, last) of a panel of W that have changed: the panel itself, where it is a copy,
// and the transpose, in which a panel is some columns of each of its panels. Padding stays zero.
template <class T>
RC_HD void refresh_operands(const Compute<T>* weight_panel, const Operands<T>& operands, std::int64_t inner,
                            std::int64_t columns, std::int64_t column, std::int64_t first, std::int64_t last) {
    constexpr int width = 2 * lanes_of<T>;
    if constexpr (packs_lines<T>)
        if (column + width <= columns)
            for (; first + width <= last; first += width)
                refresh_block(weight_panel + first * width,
                              operands.panels + (column * operand_rows<T>(inner) + first * width),
                              operands.transposed + first * operand_rows<T>(columns) + column * width);
    visit_panel_blocks<Compute<T>>(
        {weight_panel, width}, first, last, columns, column,
        [&](auto& block, std::int64_t k, std::int64_t j, auto rows, auto outs) {
            if constexpr (!computes_itself<T>)
                write_rows(block, rows, operands.panels + column * operand_rows<T>(inner), k, j - column);
            transpose<Compute<T>>(block);
            write_rows(block, outs, operands.transposed + k / width * operand_rows<T>(columns) * width, j, k % width);
        });
}

// What is done around each register tile of a panel's share.
template <class T, class Finish>
struct PanelShare {
    static constexpr std::int64_t width = 2 * lanes_of<T>;
    const WeightsArgs<T>& args;
    std::int64_t panel, first_panel, last_panel;  // of those whose sums lie one after the other
    std::int64_t begin, end;                      // of the stretch

    // Where rows k onwards are summed. What is finished before the next rows are summed needs no room of its own.
    RC_HD Compute<T>* sum(std::int64_t k) const {
        if (Finish::updates && finishes_blocks && begin == 0 && end == args.rows) return args.sums;
        return Finish::sum(args, panel, first_panel, width * args.inner) + k * width;
    }
    // What `after` will touch.
    RC_HD Soon soon(std::int64_t k, int rows) const {
        if (RC_VECTOR_BYTES < 64 || end != args.rows || end - begin < worth_a_prefetch) return {};
        return Finish::soon(args, panel, k, rows);
    }
    // Sums that go on after those of rows [k, k + rows): tiles are loaded from them before anything else is done, so
    // that they are waited for however few rows there are.
    RC_HD void add_next_sums(Soon& soon, std::int64_t k, int rows) const {
        const std::int64_t left = (last_panel - panel) * args.inner - k - rows;
        if (left > 0) soon.add(sum(k + rows), (left < width ? left : width) * width);
    }
    RC_HD void after(std::int64_t k, int rows) const {
        if (end != args.rows) return;
        Finish::finish(args, (panel * args.inner + k) * width, sum(k), rows * width);
        if constexpr (Finish::updates && finishes_blocks) refresh(k, k + rows);
    }
    RC_HD void refresh(std::int64_t first, std::int64_t last) const {
        refresh_operands(args.weight.value + panel * width * args.inner, args.operands, args.inner, args.columns,
                         panel * width, first, last);
    }
};

template <class T, class Finish>
RC_HD void weights_panels(const WeightsArgs<T>& args, std::int64_t first_panel, std::int64_t last_panel) {
    constexpr std::int64_t width = 2 * lanes_of<T>;
    constexpr std::int64_t most_waiting = finishes_blocks ? panels_of_sums : 1;
    [[maybe_unused]] alignas(64) Compute<T> bias_sums[most_waiting][width];
    for (Stretch<T> stretch(args); stretch.begin < args.rows; stretch.begin = stretch.end) {
        const std::int64_t together = Stretch<T>::rows_together(args.inner), left = args.rows - stretch.begin;
        stretch.end = stretch.begin + (left < together ? left : together);
        stretch.take_rows();
        for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
            stretch.column = panel * width;
            for (int half = 0; half < 2; ++half) {
                const std::int64_t left = args.columns - stretch.column - half * lanes_of<T>;
                stretch.lanes[half] = left > lanes_of<T> ? lanes_of<T> : left < 0 ? 0 : static_cast<int>(left);
            }
            stretch.take_panel();
            const PanelShare<T, Finish> share{args, panel, first_panel, last_panel, stretch.begin, stretch.end};
            [[maybe_unused]] Compute<T>* const bias_sum = bias_sums[(panel - first_panel) % most_waiting];
            if constexpr (finishes_blocks)
                if (args.has_bias) add_to_bias_gradient<T, Finish>(args, stretch, bias_sum);
            add_stretch(stretch, stretch.begin == 0 && !args.accumulate, share);
            if (stretch.end < args.rows) continue;
            if constexpr (finishes_blocks) {
                if (args.has_bias) finish_bias_gradient<T, Finish>(args, stretch, bias_sum);
            } else {
                if (args.has_bias) bias_gradient<T, Finish>(args, stretch);
                if constexpr (Finish::updates) share.refresh(0, args.inner);
            }
        }
    }
}

// All panels, or as many at a time as there is room for where their sums are in memory of the call.
template <class T, class Finish>
RC_HD void weights_panels(const WeightsArgs<T>& args) {
    const bool waits = args.rows > Stretch<T>::rows_together(args.inner);
    std::int64_t most = waits || (Finish::updates && !finishes_blocks) ? args.waiting_panels : args.last_panel;
    if (finishes_blocks && waits && most > panels_of_sums) most = panels_of_sums;  // as many as bias_sums has room for
    for (std::int64_t first = args.first_panel; first < args.last_panel; first += most)
        weights_panels<T, Finish>(args, first, first + most < args.last_panel ? first + most : args.last_panel);
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
            refresh_operands(args.weight.value + base, args.operands, args.inner, args.columns, panel * width, 0,
                             args.inner);
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

// A stretch of bfloat16 or bfloat16x2 as micro_kernel.h takes it: in pairs. Included inside an ISA's namespace.

template <>
struct Stretch<bfloat16> : PairedStretch<bfloat16> {
    using Number = bfloat16;

    explicit Stretch(const WeightsArgs<bfloat16>& args) : PairedStretch{{args}} {}

    void take_rows() const {
        const std::int64_t inner = args.inner, stride = 2 * pair_stride(inner);
        const Rows<bfloat16> a = args.a;
        bfloat16* to = args.room;
        for (std::int64_t row = begin; row < end; row += 2, to += stride) {
            std::int64_t k = 0;
            if (row + 2 <= end)
                for (; k + 2 * word_lanes <= inner; k += 2 * word_lanes) interleave_line(a, row, k, to + 2 * k);
            for (; k < inner; k += word_lanes) write_pairs(pairs(a, row, end, k, inner - k), to + 2 * k);
        }
    }
    void take_panel() const { interleave_panel(panel_of_delta(), begin, end, end, lanes, panel_pairs()); }
    bool is_laid_out() const { return false; }
    PanelSplit split() const { return split_gradient<bfloat16>(lanes); }
    void add_tail(float* sum, bool first) const {
        RC_ISA::add_tail<bfloat16>(split(),
                                   {{args.room, 2 * pair_stride(args.inner)},
                                    {panel_pairs(), 4 * word_lanes},
                                    (end - begin + 1) / 2,
                                    sum,
                                    first},
                                   args.inner);
    }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<bfloat16, MR, V>& acc, std::int64_t k, std::int64_t first, std::int64_t last) const {
        const std::int64_t stride = 2 * pair_stride(args.inner), pair = first / 2;
        NothingAhead nothing;
        const Strided<bfloat16> numbers{args.room + pair * stride + 2 * k, 2, stride};
        accumulate_pairs<MR, V, 1>(numbers, panel_pairs() + pair * 4 * word_lanes, 4 * word_lanes,
                                   (last + 1) / 2 - pair, acc, nothing);
    }
};

template <>
struct Stretch<bfloat16x2> : PairedStretch<bfloat16x2> {
    using Number = bfloat16x2;

    explicit Stretch(const WeightsArgs<bfloat16x2>& args) : PairedStretch{{args}} {}

    void take_rows() const {}
    // The halves of δ as a weight's.
    void take_panel() const {
        const Rows<bfloat16x2> delta = panel_of_delta();
        bfloat16x2* to = panel_pairs();
        for (std::int64_t row = begin; row < end; ++row, to += 4 * word_lanes)
            for (int half = 0; half < 2; ++half) {
                const Words words = read_words(delta.data + row * delta.stride + half * word_lanes, lanes[half]);
                write_words(high_twice(words), to + half * word_lanes);
                write_words(low_twice(words), to + (2 + half) * word_lanes);
            }
    }
    bool is_laid_out() const { return false; }
    PanelSplit split() const { return {lanes[1] > 0 ? 2 : 1, 0}; }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<bfloat16x2, MR, V>& acc, std::int64_t k, std::int64_t first,
                      std::int64_t last) const {
        NothingAhead nothing;
        const Strided<bfloat16x2> numbers{args.a.data + (begin + first) * args.a.stride + k, 1, args.a.stride};
        accumulate<MR, V>(numbers, panel_pairs() + first * 4 * word_lanes, 2 * word_lanes, last - first, acc, nothing);
    }
};

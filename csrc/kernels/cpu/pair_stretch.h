// A stretch in bfloat16 as dot_add of vector_bfloat16.h takes it: A's pairs are broadcast, one by one. Included inside
// an ISA's namespace.

template <>
struct Stretch<bfloat16> : PairedStretch {
    explicit Stretch(const WeightsArgs<bfloat16>& args) : PairedStretch{{args}} {}

    void take_rows() const { interleave(args.a, 0, args.inner, end, args.inner, args.pairs, pair_stride(args.inner)); }
    void take_panel() const { interleave_panel(end); }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<bfloat16, MR, V>& acc, std::int64_t k) const {
        accumulate_pairs<MR, V>(args.pairs + 2 * k, 2, 2 * pair_stride(args.inner), panel_pairs(), 4 * word_lanes,
                                (end - begin + 1) / 2, acc);
    }
};

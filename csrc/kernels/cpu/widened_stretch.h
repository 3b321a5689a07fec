// A stretch of bfloat16 as widened_kernel.h takes it: its rows as floats. Included inside an ISA's namespace.

template <>
struct Stretch<bfloat16> : StretchRows<bfloat16> {
    using Number = float;

    explicit Stretch(const WeightsArgs<bfloat16>& args) : StretchRows<bfloat16>{args} {}

    void take_rows() const {
        for (std::int64_t row = begin; row < end; ++row)
            widen_row(args.a.data + row * args.a.stride, args.inner, a() + (row - begin) * pair_stride(args.inner));
    }
    void take_panel() {
        for (std::int64_t row = begin; row < end; ++row)
            each_row<2>([&](int v) {
                read(args.delta.data + row * args.delta.stride + column + v * word_lanes, lanes[v])
                    .store(delta_[row - begin] + v * word_lanes);
            });
    }
    PanelSplit split() const { return {lanes[1] > 0 ? 2 : 1, 0}; }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<float, MR, V>& acc, std::int64_t k) const {
        accumulate<MR, V>(a() + k, 1, pair_stride(args.inner), delta_[0], 2 * word_lanes, end - begin, acc,
                          Ahead<true>{MR, 0});
    }

private:
    RC_HD float* a() const { return reinterpret_cast<float*>(args.room); }

    alignas(64) float delta_[gradient_stretch][2 * word_lanes];
};

// A stretch of bfloat16 as widened_kernel.h takes it: its rows as floats. Included inside an ISA's namespace.

template <>
struct Stretch<bfloat16> : StretchRows<bfloat16> {
    using Number = float;

    explicit Stretch(const WeightsArgs<bfloat16>& args) : StretchRows<bfloat16>{args} {}

    static std::int64_t room(std::int64_t, std::int64_t inner) {
        return gradient_stretch * pair_stride(inner) * std::int64_t{sizeof(float)} / std::int64_t{sizeof(bfloat16)};
    }
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
    bool is_laid_out() const { return false; }
    PanelSplit split() const { return {lanes[1] > 0 ? 2 : 1, 0}; }
    template <int MR, int V>
    RC_HD void add_to(Accumulators<float, MR, V>& acc, std::int64_t k, std::int64_t first, std::int64_t last) const {
        const std::int64_t stride = pair_stride(args.inner);
        ColumnsAhead next{MR};
        const Strided<float> numbers{a() + first * stride + k, 1, stride};
        accumulate<MR, V>(numbers, delta_[first], 2 * word_lanes, last - first, acc, next);
    }

private:
    RC_HD float* a() const { return reinterpret_cast<float*>(args.room); }

    alignas(64) float delta_[gradient_stretch][2 * word_lanes];
};

// Losses of as many rows at once as a vector has floats, a row in each lane. Included inside an ISA's namespace.
//
// Invariant: lanes do not see each other, and rows that are missing are made up of the last one; so a row's loss does
// not depend on those beside it.

// Twice a vector of doubles: a number for each lane of a vector of floats.
struct Doubles {
    typedef float Half __attribute__((vector_size(RC_VECTOR_BYTES / 2)));
    static constexpr int lanes = Vec<float>::lanes;

    Vec<double> low, high;

    RC_HD Doubles(Vec<double> low, Vec<double> high) : low(low), high(high) {}
    RC_HD explicit Doubles(double x) : low(x), high(x) {}
    static RC_HD Doubles load(const double* p) {
        return {Vec<double>::load(p), Vec<double>::load(p + Vec<double>::lanes)};
    }
    RC_HD void store(double* p) const {
        low.store(p);
        high.store(p + Vec<double>::lanes);
    }
    static RC_HD Doubles widen(const float* p) {
        const auto half = [p](int i) {
            Half half;
            std::memcpy(&half, p + i * Vec<double>::lanes, sizeof half);
            return Vec<double>(__builtin_convertvector(half, Vec<double>::Native));
        };
        return {half(0), half(1)};
    }
    RC_HD void narrow(float* p) const {
        const auto half = [p](int i, Vec<double> x) {
            const Half half = __builtin_convertvector(x.v, Half);
            std::memcpy(p + i * Vec<double>::lanes, &half, sizeof half);
        };
        half(0, low);
        half(1, high);
    }
};

// clang-format off: a table of operators
RC_HD Doubles operator+(Doubles a, Doubles b) { return {a.low + b.low, a.high + b.high}; }
RC_HD Doubles operator-(Doubles a, Doubles b) { return {a.low - b.low, a.high - b.high}; }
RC_HD Doubles operator*(Doubles a, Doubles b) { return {a.low * b.low, a.high * b.high}; }
RC_HD Doubles operator/(Doubles a, Doubles b) { return {a.low / b.low, a.high / b.high}; }
RC_HD Doubles operator-(Doubles a) { return {-a.low, -a.high}; }

template <class Mask> struct Masks { Mask low, high; };
template <class Mask> Masks(Mask, Mask) -> Masks<Mask>;
RC_HD auto operator<=(Doubles a, Doubles b) { return Masks{a.low <= b.low, a.high <= b.high}; }
RC_HD auto operator<(Doubles a, Doubles b) { return Masks{a.low < b.low, a.high < b.high}; }
RC_HD auto operator>(Doubles a, Doubles b) { return Masks{a.low > b.low, a.high > b.high}; }
RC_HD auto operator!=(Doubles a, Doubles b) { return Masks{a.low != b.low, a.high != b.high}; }
template <class Mask> RC_HD Doubles select(Masks<Mask> mask, Doubles yes, Doubles no) {
    return {select(mask.low, yes.low, no.low), select(mask.high, yes.high, no.high)};
}
// clang-format on

RC_HD auto is_nan(Doubles x) { return x != x; }
RC_HD Doubles exp(Doubles x) { return {exp(x.low), exp(x.high)}; }
RC_HD Doubles log1p(Doubles x) { return {log1p(x.low), log1p(x.high)}; }
// Of what a float can be: from float's logarithm y by a step of Halley's method, y + 2·(x − e^y) / (x + e^y), whose
// error is a twelfth of the third power of that one's.
RC_HD Doubles log(Doubles x) {
    alignas(RC_VECTOR_BYTES) float near[Doubles::lanes];
    x.narrow(near);
    log_positive(read(near)).store(near);
    const Doubles y = Doubles::widen(near), e = exp(y);
    return select(is_nan(x), x, y + Doubles(2) * (x - e) / (x + e));
}

// Columns of rows that lie in memory, turned so that a column is a vector: as many at a time.
class TurnedColumns {
public:
    static constexpr int lanes = Doubles::lanes;

    RC_HD TurnedColumns(Rows<float> from, int rows, std::int64_t columns)
        : from_(from), rows_(rows), columns_(columns) {}
    RC_HD Doubles at(std::int64_t j) {
        if (j < first_ || j >= first_ + lanes) turn(j / lanes * lanes);
        return Doubles::widen(turned_[j - first_]);
    }

private:
    __attribute__((noinline)) void turn(std::int64_t first) {
        first_ = first;
        const std::int64_t left = columns_ - first;
        Vec<float> rows[lanes];
        for (int i = 0; i < lanes; ++i)
            rows[i] = read(from_.data + (i < rows_ ? i : rows_ - 1) * from_.stride + first,
                           left < lanes ? static_cast<int>(left) : lanes);
        transpose<float>(rows);
        for (int i = 0; i < lanes; ++i) rows[i].store(turned_[i]);
    }

    const Rows<float> from_;
    const int rows_;
    const std::int64_t columns_;
    std::int64_t first_ = -lanes;
    alignas(RC_VECTOR_BYTES) float turned_[lanes][lanes];
};

// math/loss.h's, with a row in each lane.
template <class T>
class RowsAtOnce {
public:
    using V = Doubles;
    static constexpr int lanes = Doubles::lanes;

    RC_HD RowsAtOnce(const LossArgs<T>& args, std::int64_t row, int rows)
        : columns(args.columns),
          target(target_of_row(args, row)),
          scale(each(rows, [&](int i) { return scale_of_row(args, row + i); })),
          labels_(each(rows, [&](int i) { return args.labels ? static_cast<double>(args.labels[row + i]) : 0; })),
          logits_({args.logits.data + row * args.logits.stride, args.logits.stride}, rows, columns),
          values_({target.values, args.targets.stride}, rows, columns),
          gradient_{args.gradient.data ? args.gradient.data + row * args.gradient.stride : nullptr,
                    args.gradient.stride},
          rows_(rows) {}

    const std::int64_t columns;
    const RowTarget<float> target;  // the first row's
    const V scale;

    RC_HD V logit(std::int64_t j) { return logits_.at(j); }
    RC_HD V value(std::int64_t j) { return values_.at(j); }
    RC_HD V is_label(std::int64_t j) const { return select(labels_ != V(static_cast<double>(j)), V(0), V(1)); }
    RC_HD void note(std::int64_t, V) const {}
    RC_HD V noted(std::int64_t j, V peak) { return exp(logit(j) - peak); }
    RC_HD bool takes_gradient() const { return gradient_.data; }
    // Columns come in order.
    RC_HD void give(std::int64_t j, V slope) {
        slope.narrow(slopes_[j % lanes]);
        if (j % lanes + 1 == lanes || j + 1 == columns)
            write_slopes(j / lanes * lanes, static_cast<int>(j % lanes) + 1);
    }

private:
    template <class Number>
    static RC_HD V each(int rows, const Number& number) {
        double all[lanes];
        for (int i = 0; i < lanes; ++i) all[i] = number(i < rows ? i : rows - 1);
        return V::load(all);
    }
    __attribute__((noinline)) void write_slopes(std::int64_t first, int count) const {
        Vec<float> turned[lanes];
        for (int i = 0; i < lanes; ++i) turned[i] = read(slopes_[i]);
        transpose<float>(turned);
        for (int i = 0; i < rows_; ++i) write(turned[i], gradient_.data + i * gradient_.stride + first, count);
    }

    const V labels_;
    TurnedColumns logits_, values_;
    const MutableRows<T> gradient_;
    const int rows_;
    alignas(RC_VECTOR_BYTES) float slopes_[lanes][lanes] = {};
};

template <class Rule, class T>
__attribute__((noinline)) void loss_at_once(const LossArgs<T>& args, std::int64_t row, int rows) {
    RowsAtOnce<T> several(args, row, rows);
    double losses[Doubles::lanes];
    (several.scale * Rule::loss(several)).store(losses);
    for (int i = 0; i < rows; ++i) args.row_loss[row + i] = checked_loss(args, row + i, losses[i]);
}

template <class T>
void loss(const LossArgs<T>& args) {
    visit_type(args.loss, Losses{}, [&](auto rule) {
        using Rule = decltype(rule);
        if constexpr (std::is_same<Compute<T>, double>::value) {
            for (std::int64_t i = 0; i < args.rows; ++i) loss_of_row<Rule>(args, i);
        } else {
            constexpr int lanes = Doubles::lanes;
            for (std::int64_t i = 0; i < args.rows; i += lanes)
                loss_at_once<Rule>(args, i, args.rows - i < lanes ? static_cast<int>(args.rows - i) : lanes);
        }
    });
    keep_largest(args.rows, args.columns, args.gradient, args.largest);
}

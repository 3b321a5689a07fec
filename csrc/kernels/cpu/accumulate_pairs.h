// The same as accumulate.h for pairs of bfloat16, by the instruction that multiplies them. Included inside an ISA's
// namespace.

// acc += A·W for pairs along k: pair p is at number p·terms of A, as `a` counts them, and at w[p·w_step …].
template <int MR, int V, int terms, class A, class T, class Ahead>
RC_HD void accumulate_pairs(A a, const bfloat16* w, std::int64_t w_step, std::int64_t pairs,
                            Accumulators<T, MR, V>& acc, Ahead& ahead) {
    for (std::int64_t p = 0; p < pairs; ++p) {
        if constexpr (MR >= 4) ahead.template ask<V>(a.at(0, 0), w);
        Words row_of_w[V];
        each_row<V>([&](int v) { row_of_w[v] = read_pairs(w + 2 * v * word_lanes); });
        each_row<MR>([&](int i) {
            const Words x = broadcast_pair(a.at(i, 0));
            each_row<V>([&](int v) { acc.at[i][v] = dot_add(x, row_of_w[v], acc.at[i][v]); });
        });
        a.skip(terms);
        w += w_step;
    }
}

// Rows of A for `length` k against a panel of pairs. A last single k has zeros beside it.
template <int MR, int V, class A, class Ahead>
RC_HD void accumulate(const A& a, const bfloat16* w, std::int64_t w_step, std::int64_t length,
                      Accumulators<bfloat16, MR, V>& acc, Ahead& ahead) {
    accumulate_pairs<MR, V, 2>(a, w, 2 * w_step, length / 2, acc, ahead);
    if (length % 2 == 0) return;
    bfloat16 last[MR][2];
    for (int i = 0; i < MR; ++i) last[i][0] = *a.at(i, length - 1), last[i][1] = bfloat16{};
    accumulate_pairs<MR, V, 2>(Strided<bfloat16>{last[0], 2, 1}, w + (length - 1) * w_step, 0, 1, acc, ahead);
}

// A stretch of bfloat16x2, which are pairs themselves, against both halves of W (ops.h).
template <int MR, int V, class A, class Ahead>
RC_HD void accumulate(const A& a, const bfloat16x2* w, std::int64_t w_step, std::int64_t length,
                      Accumulators<bfloat16x2, MR, V>& acc, Ahead& ahead) {
    for (int half = 0; half < 2; ++half, w += w_step)
        accumulate_pairs<MR, V, 1>(a, &w->low, 4 * w_step, length, acc, ahead);
}

// A register tile's sums over k, of numbers: A's are broadcast one by one. Included inside the namespace of one
// instruction set.

constexpr int vectors_of_line = RC_VECTOR_BYTES < 64 ? 64 / RC_VECTOR_BYTES : 1;

// How many elements beyond those in use what will be used next is, so that it is asked for meanwhile; 0 where it is
// known to be near. The hardware foresees neither: the next panel begins when this one was read many times, and the
// next columns of A lie in the lines of other pages. `asks_for_a`: not where A is read along its rows, which it
// foresees.
template <bool asks_for_a>
struct Ahead {
    std::int64_t a = 0, w = 0;
};

// acc += a(·, k)·w(k, ·) for one k. a(i) = a[i·row_step].
template <int MR, int V, class T, bool asks_for_a>
RC_HD void accumulate_one(const T* a, std::int64_t row_step, const T* w, Accumulators<T, MR, V>& acc,
                          Ahead<asks_for_a> ahead) {
    // Fewer rows are bound by loads. No lambda: a function that only prefetches is pure to the compiler, and so is
    // dropped.
    if constexpr (MR >= 4) {
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(w + ahead.w + v * Vec<T>::lanes, 0, 2);
        if constexpr (asks_for_a) __builtin_prefetch(a + ahead.a);
    }
    Vec<T> row_of_w[V];
    each_row<V>([&](int v) { row_of_w[v] = Vec<T>::load(w + v * Vec<T>::lanes); });
    each_row<MR>([&](int i) {
        const Vec<T> x(a[i * row_step]);
        each_row<V>([&](int v) { acc.at[i][v] = multiply_add(x, row_of_w[v], acc.at[i][v]); });
    });
}

// acc += A·W for one stretch of k. a(i, k) = a[i·row_step + k·k_step]; w(k, ·) = w[k·w_step …].
template <int MR, int V, class T, bool asks_for_a>
RC_HD void accumulate(const T* a, std::int64_t row_step, std::int64_t k_step, const T* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<T, MR, V>& acc, Ahead<asks_for_a> ahead) {
    // Two at once where a loop around one is much beside its products, which shows where the core has another thread's
    // work, too; of fewer rows GCC keeps the sums of two in memory.
    constexpr std::int64_t together = vectors_of_line > 1 && MR >= 4 && MR * V <= 12 ? 2 : 1;
    if constexpr (together == 2)
        for (; length >= together; length -= together) {
            accumulate_one(a, row_step, w, acc, ahead);
            accumulate_one(a + k_step, row_step, w + w_step, acc, ahead);
            a += together * k_step;
            w += together * w_step;
        }
    for (std::int64_t k = 0; k < length; ++k) {
        accumulate_one(a, row_step, w, acc, ahead);
        a += k_step;
        w += w_step;
    }
}

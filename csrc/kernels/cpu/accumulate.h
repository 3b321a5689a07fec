// A register tile's sums over k, of numbers: A's are broadcast one by one. Included inside the namespace of one
// instruction set.

constexpr int vectors_of_line = RC_VECTOR_BYTES < 64 ? 64 / RC_VECTOR_BYTES : 1;

// What is asked for while a tile is summed, because the hardware does not foresee it: once for every k, or pair of k.
struct NothingAhead {
    template <int V, class T>
    RC_HD void ask(const T*, const T*) {}
};
// What lies so many numbers behind W's row.
struct WeightsAhead {
    std::int64_t by;

    template <int V, class T>
    RC_HD void ask(const T*, const T* w) {
        constexpr int lanes = RC_VECTOR_BYTES / sizeof *w;
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(w + by + v * lanes, 0, 2);
    }
};
// Memory that will be read later, a little for every vector of W's row.
struct LaterAhead {
    const char* at;
    std::int64_t step;

    template <int V, class T>
    RC_HD void ask(const T*, const T*) {
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line, at += step) __builtin_prefetch(at, 0, 2);
    }
};
// The same rows' numbers so many further on: the next columns of A lie in the lines of other pages.
struct ColumnsAhead {
    std::int64_t by;

    template <int V, class T>
    RC_HD void ask(const T* a, const T*) {
        __builtin_prefetch(a + by);
    }
};

// acc += a(·, k)·w(k, ·) for one k. a(i) = a[i·row_step].
template <int MR, int V, class T, class Ahead>
RC_HD void accumulate_one(const T* a, std::int64_t row_step, const T* w, Accumulators<T, MR, V>& acc, Ahead& ahead) {
    if constexpr (MR >= 4) ahead.template ask<V>(a, w);  // fewer rows are bound by loads
    Vec<T> row_of_w[V];
    each_row<V>([&](int v) { row_of_w[v] = Vec<T>::load(w + v * Vec<T>::lanes); });
    each_row<MR>([&](int i) {
        const Vec<T> x(a[i * row_step]);
        each_row<V>([&](int v) { acc.at[i][v] = multiply_add(x, row_of_w[v], acc.at[i][v]); });
    });
}

// acc += A·W for one stretch of k. a(i, k) = a[i·row_step + k·k_step]; w(k, ·) = w[k·w_step …].
template <int MR, int V, class T, class Ahead>
RC_HD void accumulate(const T* a, std::int64_t row_step, std::int64_t k_step, const T* w, std::int64_t w_step,
                      std::int64_t length, Accumulators<T, MR, V>& acc, Ahead& ahead) {
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

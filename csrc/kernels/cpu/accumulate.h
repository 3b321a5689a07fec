// A register tile's sums over k, of numbers: A's are broadcast one by one. Included inside the namespace of one
// instruction set.

constexpr int vectors_of_line = RC_VECTOR_BYTES < 64 ? 64 / RC_VECTOR_BYTES : 1;

// What is asked for while a tile is summed, because the hardware does not foresee it: once for every k, or pair of k.
struct NothingAhead {
    template <int V, class A, class W>
    RC_HD void ask(const A*, const W*) {}
};
// What lies so many numbers behind W's row.
struct WeightsAhead {
    std::int64_t by;

    template <int V, class A, class W>
    RC_HD void ask(const A*, const W* w) {
        constexpr int lanes = RC_VECTOR_BYTES / sizeof *w;
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(w + by + v * lanes, 0, 2);
    }
};
// Memory that will be read later, a little for every vector of W's row.
struct LaterAhead {
    const char* at;
    std::int64_t step;

    template <int V, class A, class W>
    RC_HD void ask(const A*, const W*) {
#pragma GCC unroll 2
        for (int v = 0; v < V; v += vectors_of_line) __builtin_prefetch(at + v / vectors_of_line * step, 0, 2);
        at += (V + vectors_of_line - 1) / vectors_of_line * step;
    }
};
// The same rows' numbers so many further on: the next columns of A lie in the lines of other pages.
struct ColumnsAhead {
    std::int64_t by;

    template <int V, class A, class W>
    RC_HD void ask(const A* a, const W*) {
        __builtin_prefetch(a + by);
    }
};

// Where row i's number k of A is, k being counted from what has been skipped.
template <class T>
struct Strided {
    const T* first;
    std::int64_t row_step, k_step;

    RC_HD const T* at(int i, std::int64_t k) const { return first + i * row_step + k * k_step; }
    RC_HD void skip(std::int64_t terms) { first += terms * k_step; }
};

// A value that the compiler cannot compute anew, nor take apart. It may still leave out what nobody uses: the statement
// is not volatile, and touches no memory.
template <class Value>
RC_HD Value opaque(Value value) {
    asm("" : "+r"(value));
    return value;
}

// Left alone, GCC 12 keeps a distance for each row of A and each of the k that it takes together, most of them in
// memory. Of Clang 22's code for wide vectors of numbers the opposite holds: with addresses chosen for it, and two k at
// once, it keeps sums in memory, and a step takes 2 to 13 % longer (in float); but not of its code for pairs of
// bfloat16.
#if defined(__clang__)
template <class T>
constexpr bool chooses_addresses = RC_VECTOR_BYTES < 64 || !computes_itself<T>;
#else
template <class T>
constexpr bool chooses_addresses = true;
#endif

// The same of MR rows that lie apart, with their numbers side by side. Of many rows a pointer has five, at four
// distances which all pointers share: so every address is of registers.
template <class T, int MR>
class RowsApart {
    static constexpr int of_a_pointer = !chooses_addresses<T> || RC_VECTOR_BYTES < 64 || MR <= 6 ? MR : 5;
    static_assert(MR <= 3 * of_a_pointer);

public:
    RC_HD RowsApart(const T* a, std::int64_t row_step) : pointers_{a, a, a} {
        for (int row = 0; row < of_a_pointer; ++row) distances_[row] = row * row_step;
        if constexpr (MR > of_a_pointer) pointers_[1] = opaque(a + of_a_pointer * row_step);
        if constexpr (MR > 2 * of_a_pointer) pointers_[2] = opaque(a + 2 * of_a_pointer * row_step);
        hide_distances();
    }
    RC_HD const T* at(int i, std::int64_t k) const {
        return pointers_[i / of_a_pointer] + k + distances_[i % of_a_pointer];
    }
    RC_HD void skip(std::int64_t terms) {
        for (const T*& pointer : pointers_) pointer += terms;
        hide_distances();
    }

private:
    // Else a distance to the next k would be another one, and known from the start.
    RC_HD void hide_distances() {
        if constexpr (chooses_addresses<T> && MR >= 4)
            for (int row = 1; row < of_a_pointer; ++row) distances_[row] = opaque(distances_[row]);
    }
    const T* pointers_[3];
    std::int64_t distances_[of_a_pointer];
};

// acc += a(·, k)·w(k, ·) for one k.
template <int MR, int V, class A, class T, class Ahead>
RC_HD void accumulate_one(const A& a, std::int64_t k, const T* w, Accumulators<T, MR, V>& acc, Ahead& ahead) {
    if constexpr (MR >= 4) ahead.template ask<V>(a.at(0, k), w);  // fewer rows are bound by loads
    Vec<T> row_of_w[V];
    each_row<V>([&](int v) RC_INLINED { row_of_w[v] = Vec<T>::load(w + v * Vec<T>::lanes); });
    each_row<MR>([&](int i) RC_INLINED {
        const Vec<T> x(*a.at(i, k));
        each_row<V>([&](int v) RC_INLINED { acc.at[i][v] = multiply_add(x, row_of_w[v], acc.at[i][v]); });
    });
}

// acc += A·W for one stretch of k. w(k, ·) = w[k·w_step …].
template <int MR, int V, class A, class T, class Ahead>
RC_HD void accumulate(A a, const T* w, std::int64_t w_step, std::int64_t length, Accumulators<T, MR, V>& acc,
                      Ahead& ahead) {
    // Two at once, as what a loop does around one takes units from its products. Of fewer rows, and of wide vectors
    // with other addresses than those of RowsApart, GCC keeps the sums of two in memory, or gains nothing.
    constexpr bool fits =
        vectors_of_line > 1 ? MR * V <= 12 : chooses_addresses<T> && std::is_same<A, RowsApart<T, MR>>::value;
    constexpr std::int64_t together = MR >= 4 && fits ? 2 : 1;
    if constexpr (together == 2)
        for (; length >= together; length -= together) {
            accumulate_one(a, 0, w, acc, ahead);
            accumulate_one(a, 1, w + w_step, acc, ahead);
            a.skip(together);
            w += together * w_step;
        }
    for (std::int64_t k = 0; k < length; ++k) {
        accumulate_one(a, 0, w, acc, ahead);
        a.skip(1);
        w += w_step;
    }
}

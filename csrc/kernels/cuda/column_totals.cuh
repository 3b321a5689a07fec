// Sums along all rows for a few columns a block: for batches whose columns are few rows long, so that nothing is left
// for another launch to put together.
//
// Invariant: the order of adding is fixed by the number of rows alone: a thread adds every 256th row, lanes and warps
// add pairs that lie the same way apart. A warp's sum is rounded as a chunk's are (kernels/norm_ops.h), in fewer steps:
// 32 rows of a thread at the most (`joined_rows`) and five pairs are 37, a chunk's rows 64. Warps are put together in
// double.
#pragma once

#include "kernels/cuda/elements.cuh"

namespace resnetcore {
namespace cuda {

constexpr int total_threads = 256, total_warps = total_threads / 32;

// Where warps leave their sums of each number, those of neighbouring numbers in other banks.
struct ColumnTotals {
    struct alignas(16) Number {
        double of_warps[total_warps + 2];
    };
    Number numbers[2 * stretch_columns];
};

// The sums over the warp's lanes of n numbers: that of number (lane / (32 / n)) in x[0]. Half of the numbers go to the
// other half of the lanes each time, so that no sum is made twice.
template <int left, int apart, class C, int n>
__device__ __forceinline__ void add_lanes(C (&x)[n]) {
    if constexpr (apart > 0 && left > 1) {
        constexpr int half = left / 2;
        const bool upper = threadIdx.x & apart;
#pragma unroll
        for (int k = 0; k < half; ++k) {
            const C given = upper ? x[k] : x[k + half], kept = upper ? x[k + half] : x[k];
            x[k] = kept + __shfl_xor_sync(0xffffffffu, given, apart);
        }
        add_lanes<half, apart / 2>(x);
    } else if constexpr (apart > 0) {
        x[0] = x[0] + __shfl_xor_sync(0xffffffffu, x[0], apart);
        add_lanes<1, apart / 2>(x);
    }
}
// The sum of the first `left` numbers, in x[0].
template <int left, int n>
__device__ __forceinline__ void add_halves(double (&x)[n]) {
    if constexpr (left > 1) {
        constexpr int half = left / 2;
#pragma unroll
        for (int k = 0; k < half; ++k) x[k] = x[k] + x[k + half];
        add_halves<half>(x);
    }
}
__device__ __forceinline__ double add_warps(const ColumnTotals::Number& number) {
    double x[total_warps];
#pragma unroll
    for (int w = 0; w < total_warps; ++w) x[w] = number.of_warps[w];
    add_halves<total_warps>(x);
    return x[0];
}

// Rows that a thread reads together: every 256th from its first on.
template <class C>
constexpr int rows_together = 16 / sizeof(C);

// n neighbours as they are stored, which have been read already (as NothingKept has it).
template <class T, int n>
class KeptStretch {
public:
    __device__ __forceinline__ void read_from(const T* from) {
        words_ = stretch_at<bytes / sizeof(Word)>(reinterpret_cast<const Word*>(from));
    }
    __device__ __forceinline__ Stretch<Compute<T>, n> numbers() const {
        if constexpr (std::is_same<T, bfloat16>::value && n > 1) {
            Stretch<float, n> x;
#pragma unroll
            for (int c = 0; c < n; c += 2) {
                x.at[c] = to_float(lower(words_.at[c / 2]));
                x.at[c + 1] = to_float(upper(words_.at[c / 2]));
            }
            return x;
        } else {
            Stretch<T, n> stored;
            std::memcpy(&stored, &words_, sizeof stored);
            return read(stored);
        }
    }
    template <int>
    __device__ __forceinline__ Stretch<Compute<T>, n> get(const Rows<T>&, std::int64_t, std::int64_t) const {
        return numbers();
    }

private:
    // Not as numbers of 16 bits, which would have a register each.
    static constexpr int bytes = n * sizeof(T);
    using Word = std::conditional_t<bytes % 4 == 0, std::uint32_t, std::uint16_t>;
    Stretch<Word, bytes / sizeof(Word)> words_;
};

// A thread's next rows from the `first` on, as many as are read together, of n columns from j on: all that there are
// are asked for at once.
template <class T, int n>
class KeptRows {
public:
    __device__ __forceinline__ KeptRows(const Rows<T>& from, int rows, int first, std::int64_t j)
        : from_(from.data + first * from.stride + j), step_(total_threads * from.stride), left_(rows - first) {
#pragma unroll
        for (int s = 0; s < count; ++s) read_next(at_[s]);
    }
    __device__ __forceinline__ const KeptStretch<T, n>& operator[](int s) const { return at_[s]; }
    // The first of them is done with.
    __device__ __forceinline__ void advance() {
#pragma unroll
        for (int s = 0; s + 1 < count; ++s) at_[s] = at_[s + 1];
        read_next(at_[count - 1]);
    }

private:
    static constexpr int count = rows_together<Compute<T>>;

    __device__ __forceinline__ void read_next(KeptStretch<T, n>& to) {
        if (left_ > 0) to.read_from(from_);
        from_ += step_, left_ -= total_threads;
    }

    const T* from_;
    std::int64_t step_;
    int left_;  // rows of the block from the next on
    KeptStretch<T, n> at_[count];
};

// Σ value(kept, s, row), a Stretch, over the thread's rows. Its first ones are in `kept`, those from `first` on in
// read(first), each as its s-th.
template <int together, class Kept, class Read, class Value>
__device__ __forceinline__ auto sum_own_rows(int rows, const Kept& kept, Read read, Value value) {
    decltype(value(kept, 0, 0)) sum = {};
    const auto add = [&](const Kept& some, int first) {
#pragma unroll
        for (int s = 0; s < together; ++s)
            if (first + s * total_threads < rows) each(sum, Plus(), value(some, s, first + s * total_threads));
    };
    const int own = static_cast<int>(threadIdx.x);
    add(kept, own);
#pragma unroll 1
    for (int first = own + together * total_threads; first < rows; first += together * total_threads)
        add(read(first), first);
    return sum;
}

// Σ own over the block's threads: thread k calls then(total) with that of number k, if there is one. What this has
// written the whole block may read when all returns. Called by the whole block.
template <class C, int n, class Then>
__device__ __forceinline__ void add_threads(Stretch<C, n> sum, ColumnTotals& totals, Then then) {
    constexpr int lanes_of_number = 32 / n;
    const int own = static_cast<int>(threadIdx.x), lane = own % 32, warp = own / 32;
    add_lanes<n, 16>(sum.at);
    if (lane % lanes_of_number == 0) totals.numbers[lane / lanes_of_number].of_warps[warp] = sum.at[0];
    __syncthreads();
    if (own < n) then(add_warps(totals.numbers[own]));
    __syncthreads();
}

// visit(Columns<n>(), j) for this block's columns from j on: 8 where `whole`, as `visit_stretches` has it, one without.
template <class Visit>
__device__ __forceinline__ void visit_columns(std::int64_t columns, bool whole, Visit visit) {
    const std::int64_t width = whole ? stretch_columns : 1, first = blockIdx.x * width;
    const std::int64_t end = first + width < columns ? first + width : columns;
    if (end - first == stretch_columns) {
        visit(Columns<stretch_columns>(), first);
    } else {
#pragma unroll 1
        for (std::int64_t j = first; j < end; ++j) visit(Columns<1>(), j);
    }
}
inline dim3 column_grid(std::int64_t columns, bool whole) {
    return dim3(static_cast<unsigned>(stretch_count(1, columns, whole)));
}

}  // namespace cuda
}  // namespace resnetcore

// residual_forward: sums, then bias, skips, a branch and the activation.
#include <limits>

#include "kernels/cuda/ampere/sum.cuh"
#include "kernels/cuda/apply_norm.cuh"
#include "kernels/cuda/hopper/sum.cuh"
#include "math/activation.h"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace {

template <class T>
struct ForwardKeepingPasses;

template <class T>
struct Forward {
    using KeepsPasses = std::false_type;
    ForwardArgs<T> args;

    template <class Launch>
    bool with_passes(Launch launch) const {
        if (!args.passes || !is_relu() || !hopper::keeps_passes()) return false;
        launch(ForwardKeepingPasses<T>{*this, args.passes->bits});
        args.passes->there = true;
        return true;
    }

    bool is_on_boundaries() const {
        const Branch<T>& b = args.branch;
        return are_on_boundaries(args.identity, args.n_identity) &&
               on_boundaries(args.bias, args.mask, args.argument, args.out, args.wide, b.z, b.center, b.scale, b.shift,
                             b.mask);
    }

    // As nearly every layer, with a skip at the most.
    bool is_usual() const {
        return !args.branch.z.data && !args.argument.data && !args.mask.data && args.out.data && !args.wide.data &&
               (hopper::is_activation<Identity>(args.activation) || is_relu());
    }
    RC_HD bool is_relu() const { return hopper::is_activation<Relu>(args.activation); }

    // As nearly every layer with a norm: ReLU without dropout, and nothing else is kept.
    RC_HD bool is_plain_relu() const {
        return is_relu() && !args.bias && !args.branch.mask.data && !args.mask.data && !args.argument.data &&
               args.out.data && !args.wide.data;
    }
    // Then the same as a compiler sees it, which looks for nothing else in every row.
    RC_HD Forward plain_relu() const {
        Forward plain = *this;
        plain.args.activation = index_of<Relu>(Activations{});
        plain.args.bias = nullptr, plain.args.branch.mask = plain.args.mask = {};
        plain.args.argument = {}, plain.args.wide = {};
        return plain;
    }

    struct Ahead {
        Stretch<float, hopper::Strip::width> bias;
        hopper::Words skip[hopper::Strip::count];
    };
    template <int most>
    __device__ __forceinline__ Ahead ahead(const hopper::Strip& strip, const Terms<T, most>& terms) const {
        Ahead x;
        strip.read(terms.n_identity > 0 ? terms.identity[0] : Rows<T>(), hopper::nothing_twice, x.skip);
        x.bias = strip.read_columns(args.bias);
        return x;
    }
    template <int n>
    __device__ __forceinline__ Stretch<float, n> finish_usual(Stretch<float, n> z, const Stretch<float, n>& bias,
                                                              const Stretch<float, n>& skip) const {
        each(z, Plus(), bias);
        each(z, Plus(), skip);
        // ReLU, or what changes nothing.
        each(z, [least = is_relu() ? 0.0f : -std::numeric_limits<float>::infinity()](float x) {
            return larger_or_nan(x, least);
        });
        return z;
    }
    __device__ __forceinline__ Stretch<float, hopper::Strip::width> finish_usual(Stretch<float, hopper::Strip::width> z,
                                                                                 const Ahead& ahead, int v) const {
        return finish_usual(z, ahead.bias, numbers_of(ahead.skip[v]));
    }

    // The same of a broad tile, two columns at a time. Its bias is prepared, some columns a thread: where there is
    // none, +0, and where it is −0 also, as sums begin from +0.
    template <class Begin>
    __device__ __forceinline__ void prepare(Shared to, std::int64_t, std::int64_t first_column, Begin begin) const {
        constexpr int width = hopper::broad_columns / (32 * hopper::preparing_warps);
        static_assert(width == 4, "as many as are stored at a time");
        const int column = width * hopper::preparing_thread();
        const bool asks = args.bias && first_column + column < args.columns;
        Stretch<float, width> bias = {};
        if (asks) each(bias, Plus(), read<width>(args.bias + first_column + column));
        begin();
        store(hopper::place_of_columns(to, column), bias.at[0], bias.at[1], bias.at[2], bias.at[3]);
    }
    struct OfRow {};
    __device__ __forceinline__ OfRow of_row(Shared, int, int) const { return {}; }
    using OfColumns = hopper::Pair;
    __device__ __forceinline__ OfColumns of_columns(Shared prepared, int column) const {
        hopper::Pair bias;
        load(hopper::place_of_columns(prepared, column), bias.at[0], bias.at[1]);
        return bias;
    }
    __device__ __forceinline__ hopper::Pair finish_pair(const hopper::Pair& z, const hopper::Pair& skip,
                                                        const hopper::Pair& bias, OfRow, int, int) const {
        return finish_usual(z, bias, skip);
    }

    // n neighbours of row i, from column j on.
    template <int n, class Skips, class Kept>
    __device__ __forceinline__ void add(Stretch<Compute<T>, n>& z, const Skips& skips, std::int64_t i, std::int64_t j,
                                        const Kept& kept) const {
        if (args.bias) each(z, Plus(), read<n>(args.bias + j));
        skips.add_identities(z, i, j, kept);
    }
    template <int n, class Kept>
    __device__ __forceinline__ void add_branch(Stretch<Compute<T>, n>& sum, std::int64_t i, std::int64_t j,
                                               const Kept& kept) const {
        const Branch<T>& b = args.branch;
        if (!b.z.data) return;
        add_branch(sum, i, j, kept, [&](Stretch<Compute<T>, n>& z) {
            if (b.center) Normaliser<Compute<T>, n>(b.center + j, b.scale + j, b.shift + j)(z);
        });
    }
    template <int n, class Kept, class Norm>
    __device__ __forceinline__ void add_branch(Stretch<Compute<T>, n>& sum, std::int64_t i, std::int64_t j,
                                               const Kept& kept, const Norm& norm) const {
        const Branch<T>& b = args.branch;
        Stretch<Compute<T>, n> z = kept.template get<n>(b.z, i, j);
        norm(z);
        if (b.mask.data) each(z, Times(), read<n>(b.mask, i, j));
        each(sum, Plus(), z);
    }
    RC_HD Rows<T> branch() const { return args.branch.z; }

    template <int n, class Kept>
    __device__ __forceinline__ void finish(Stretch<Compute<T>, n> z, std::int64_t i, std::int64_t j,
                                           LargestResult<T>& largest, const Kept&) const {
        if (args.argument.data) write<n>(z, args.argument, i, j);
        visit_type(args.activation, Activations{},
                   [&](auto g) { each(z, [](Compute<T> x) { return decltype(g)::forward(x); }); });
        if (args.mask.data) each(z, Times(), read<n>(args.mask, i, j));
        write_both<n>(z, args.out, args.wide, i, j);
        largest.add(z);
    }

    RC_HD Rows<T> last() const { return {}; }
};

// Of broad tiles alone.
template <class T>
struct ForwardKeepingPasses : Forward<T> {
    using KeepsPasses = std::true_type;
    std::uint32_t* bits;

    ForwardKeepingPasses(const Forward<T>& forward, std::uint32_t* bits) : Forward<T>(forward), bits(bits) {}
    // Of 64 rows and columns from these on, this thread's.
    __device__ __forceinline__ void leave_passes(std::int64_t row, std::int64_t column, std::uint32_t word) const {
        const ForwardArgs<T>& args = this->args;
        if (row < args.rows && column < args.columns)
            bits[hopper::pass_place(row, column, args.columns) + threadIdx.x % hopper::group_threads] = word;
    }
};

// All skips of a layer that has one, which has been read already.
struct KeptSkip {
    template <class C, int n, class Kept>
    __device__ __forceinline__ void add_identities(Stretch<C, n>& sum, std::int64_t i, std::int64_t j,
                                                   const Kept& kept) const {
        each(sum, Plus(), kept.template get<n>({}, i, j));
    }
};

// A step without a product.
template <class T>
struct Epilogue {
    Forward<T> forward;
    Terms<T, usual_terms> terms;
    explicit Epilogue(const ForwardArgs<T>& args) : forward{args}, terms(args) {}
    static bool holds(const ForwardArgs<T>& args) { return args.n_sources == 0 && args.n_identity <= usual_terms; }

    template <int n>
    __device__ __forceinline__ void finish(std::int64_t i, std::int64_t j, LargestResult<T>& largest) const {
        Stretch<Compute<T>, n> sums = {};
        forward.add(sums, terms, i, j, NothingKept());
        forward.add_branch(sums, i, j, NothingKept());
        forward.finish(sums, i, j, largest, NothingKept());
    }
    // What follows a norm's coefficients, for a block of `apply_norm_kernel`: the first skip is read ahead.
    template <int n>
    __device__ __forceinline__ KeptRows<T, n> ahead(Columns<n>, int rows, std::int64_t j) const {
        return KeptRows<T, n>(terms.identity[0], terms.n_identity > 0 ? rows : 0, static_cast<int>(threadIdx.x), j);
    }
    template <int n>
    __device__ __forceinline__ void operator()(const KeptRows<T, n>& z, const KeptRows<T, n>& skip,
                                               const Normaliser<Compute<T>, n>& norm, std::int64_t j) const {
        LargestResult<T> largest;
        if (terms.n_identity == 1 && forward.is_plain_relu())
            finish_rows<rows_together<Compute<T>>>(forward.plain_relu(), KeptSkip(), z, skip, norm, j, largest);
        else
            finish_rows<1>(forward, terms, z, skip, norm, j, largest);
        largest.template keep_of_block<total_threads>(forward.args.largest);
    }

private:
    template <int unrolled, int n, class Skips>
    static __device__ __forceinline__ void finish_rows(const Forward<T>& forward, const Skips& skips, KeptRows<T, n> z,
                                                       KeptRows<T, n> skip, const Normaliser<Compute<T>, n>& norm,
                                                       std::int64_t j, LargestResult<T>& largest) {
        const int rows = static_cast<int>(forward.args.rows);
#pragma unroll unrolled
        for (int i = static_cast<int>(threadIdx.x); i < rows; i += total_threads, z.advance(), skip.advance()) {
            Stretch<Compute<T>, n> sums = {};
            forward.add(sums, skips, i, j, skip[0]);
            forward.add_branch(sums, i, j, z[0], norm);
            forward.finish(sums, i, j, largest, NothingKept());
        }
    }
};
template <class T>
struct NoEpilogue {
    struct Nothing {};
    template <int n>
    __device__ Nothing ahead(Columns<n>, int, std::int64_t) const {
        return {};
    }
    template <class Kept, class Norm>
    __device__ void operator()(const Kept&, Nothing, const Norm&, std::int64_t) const {}
};

template <class T>
__global__ void epilogue_kernel(const __grid_constant__ Epilogue<T> epilogue, bool whole) {
    const ForwardArgs<T>& args = epilogue.forward.args;
    LargestResult<T> largest;
    visit_stretches(args.rows, args.columns, whole,
                    [&](auto n, std::int64_t i, std::int64_t j) { epilogue.template finish<n>(i, j, largest); });
    largest.template keep_of_block<element_threads>(args.largest);
}
template <class T>
void launch_epilogue(const Epilogue<T>& epilogue) {
    const ForwardArgs<T>& args = epilogue.forward.args;
    const bool whole = epilogue.forward.is_on_boundaries();
    launch_measuring<epilogue_kernel<T>>(args.largest, args.rows, args.columns, whole, epilogue, whole);
}

}  // namespace

template <class T>
void forward(const ForwardArgs<T>& args) {
    if (Epilogue<T>::holds(args)) return launch_epilogue(Epilogue<T>(args));
    const Forward<T> epilogue{args};
    if (!hopper::launch_sum<T>(epilogue) && !ampere::launch_sum<T>(epilogue)) launch_sum<T>(epilogue);
}

// The branch's coefficients are those that `combine` writes. A product, or a long list of skips, follows in a launch of
// its own.
template <class T>
void apply_norm(const CombineMomentsArgs<T>& combine, const ForwardArgs<T>& args) {
    const bool joins = Epilogue<T>::holds(args);
    const bool whole = on_boundary(args.branch.z) && (!joins || Forward<T>{args}.is_on_boundaries());
    const dim3 grid = column_grid(args.columns, whole);
    if (grid.x == 0) return;
    if (joins)
        return launch_ahead<apply_norm_kernel<T, Epilogue<T>>>(0, grid, total_threads, args.branch.z, combine,
                                                               Epilogue<T>(args), whole);
    launch_ahead<apply_norm_kernel<T, NoEpilogue<T>>>(0, grid, total_threads, args.branch.z, combine, NoEpilogue<T>(),
                                                      whole);
    forward(args);
}

#define RC_INSTANTIATE(T)                         \
    template void forward(const ForwardArgs<T>&); \
    template void apply_norm(const CombineMomentsArgs<T>&, const ForwardArgs<T>&);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

// Between row-major matrices and packed panels, and between storage and what is computed with (see ops.h).
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/largest.cuh"
#include "math/normalisation.h"

namespace resnetcore {
namespace cuda {
namespace {

// Panels of To, with as many rows each as `rows`: those beyond `inner`, and columns beyond the last, are zeros. Called
// with row i of all panels, one after another.
template <class From, class To>
struct Pack {
    std::int64_t inner, columns, rows;
    Rows<From> w;
    bool transposed;  // element (k, j) is w's (j, k)
    To* panels;
    __device__ void operator()(std::int64_t i, std::int64_t column) const {
        const std::int64_t k = i % rows, j = i / rows * panel_width + column;
        From x = 0;
        if (k < inner && j < columns) x = transposed ? read(w, j, k) : read(w, k, j);
        write(x, panels[i * panel_width + column]);
    }
};

template <class From, class To>
void pack_rows(std::int64_t inner, std::int64_t columns, std::int64_t rows, Rows<From> w, bool transposed, To* panels) {
    for_elements(panel_count(columns, panel_width) * rows, panel_width,
                 Pack<From, To>{inner, columns, rows, w, transposed, panels});
}

template <class C>
struct Unpack {
    std::int64_t inner;
    const C* panels;
    MutableRows<C> w;
    __device__ void operator()(std::int64_t k, std::int64_t j) const {
        write(panels[(j / panel_width * inner + k) * panel_width + j % panel_width], w, k, j);
    }
};

// Row `i` of all the operand's panels, one after another.
template <class T>
struct FoldWeight {
    FoldArgs<T> args;
    __device__ void operator()(std::int64_t i, std::int64_t column) const {
        const std::int64_t rows = operand_rows<T>(args.inner), k = i % rows, panel = i / rows;
        const std::int64_t j = panel * panel_width + column;
        const bool exists = k < args.inner && j < args.columns;
        const Compute<T> w = exists ? args.panels[(panel * args.inner + k) * panel_width + column] : Compute<T>(0);
        write(exists ? w * args.norm.scale[j] : Compute<T>(0), args.out[i * panel_width + column]);
    }
};
template <class T>
struct FoldBias {
    FoldArgs<T> args;
    __device__ void operator()(std::int64_t, std::int64_t j) const {
        args.bias[j] = folded_bias(args.norm.shift[j], args.norm.mean[j], args.norm.scale[j]);
    }
};

template <class From, class To>
struct Convert {
    Rows<From> in;
    MutableRows<To> out;
    template <int n>
    __device__ Stretch<Compute<To>, n> operator()(Columns<n>, std::int64_t i, std::int64_t j) const {
        const Stretch<Compute<To>, n> x = read<n>(in, i, j);
        write<n>(x, out, i, j);
        return x;
    }
};

// The same, and the largest magnitude of `out`.
template <class From, class To>
__global__ void __launch_bounds__(element_threads)
    measured_convert_kernel(std::int64_t rows, std::int64_t columns, bool whole,
                            const __grid_constant__ Convert<From, To> conversion, double* into) {
    LargestResult<To> largest;
    visit_stretches(rows, columns, whole,
                    [&](auto n, std::int64_t i, std::int64_t j) { largest.add(conversion(n, i, j)); });
    largest.template keep_of_block<element_threads>(into);
}

template <class From, class To>
struct Conversion {
    std::int64_t rows, columns;
    Convert<From, To> element;
    bool whole;

    Conversion(std::int64_t rows, std::int64_t columns, Rows<From> in, MutableRows<To> out)
        : rows(rows), columns(columns) {
        if (in.stride == columns && out.stride == columns) {  // one long row
            this->columns *= rows, this->rows = 1;
            in.stride = out.stride = 0;
        }
        element = {in, out};
        whole = on_boundaries(in, out);
    }
    void run() const { for_stretches(rows, columns, whole, element); }
    void run_measured(double* into) const {
        launch_measuring<measured_convert_kernel<From, To>>(into, rows, columns, whole, rows, columns, whole, element,
                                                            into);
    }
};

}  // namespace

template <class T>
void pack(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, Compute<T>* panels) {
    pack_rows(inner, columns, inner, w, false, panels);
}
template <class T>
void unpack(std::int64_t inner, std::int64_t columns, const Compute<T>* panels, MutableRows<Compute<T>> w) {
    for_elements(inner, columns, Unpack<Compute<T>>{inner, panels, w});
}
template <class T>
void pack_operand(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    pack_rows(inner, columns, operand_rows<T>(inner), w, false, panels);
}
template <class T>
void pack_transposed(std::int64_t inner, std::int64_t columns, Rows<Compute<T>> w, T* panels) {
    pack_rows(columns, inner, operand_rows<T>(columns), w, true, panels);
}
template <class T>
void fold(const FoldArgs<T>& args) {
    for_elements(panel_count(args.columns, panel_width) * operand_rows<T>(args.inner), panel_width,
                 FoldWeight<T>{args});
    for_elements(1, args.columns, FoldBias<T>{args});
}
template <class T>
void narrow(std::int64_t rows, std::int64_t columns, Rows<Compute<T>> in, MutableRows<T> out, double* largest) {
    const Conversion<Compute<T>, T> conversion(rows, columns, in, out);
    largest ? conversion.run_measured(largest) : conversion.run();
}
template <class T>
void widen(std::int64_t rows, std::int64_t columns, Rows<T> in, MutableRows<Compute<T>> out) {
    Conversion<T, Compute<T>>(rows, columns, in, out).run();
}

#define RC_INSTANTIATE(T)                                                                            \
    template void pack<T>(std::int64_t, std::int64_t, Rows<Compute<T>>, Compute<T>*);                \
    template void unpack<T>(std::int64_t, std::int64_t, const Compute<T>*, MutableRows<Compute<T>>); \
    template void pack_operand<T>(std::int64_t, std::int64_t, Rows<Compute<T>>, T*);                 \
    template void pack_transposed<T>(std::int64_t, std::int64_t, Rows<Compute<T>>, T*);              \
    template void fold(const FoldArgs<T>&);                                                          \
    template void narrow<T>(std::int64_t, std::int64_t, Rows<Compute<T>>, MutableRows<T>, double*);  \
    template void widen<T>(std::int64_t, std::int64_t, Rows<T>, MutableRows<Compute<T>>);
RC_EACH_STORAGE(RC_INSTANTIATE)

}  // namespace cuda
}  // namespace resnetcore

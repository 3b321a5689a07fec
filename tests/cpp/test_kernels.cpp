// Every instruction set, every tail: small integers, whose sums are exact in any order, must agree to the last bit with
// plain loops; all arrays lie flush against forbidden pages.
#include <cmath>
#include <memory>
#include <vector>

#include "math/activation.h"
#include "matrices.h"

using namespace resnetcore;

namespace {

template <class T>
struct Case {
    const KernelTable<T>& k;
    const char* isa;
    std::int64_t rows, inner, columns;
    Flush flush;

    std::string where() const {
        return std::string(isa) + " rows " + std::to_string(rows) + " inner " + std::to_string(inner) + " columns " +
               std::to_string(columns);
    }

    void forward_and_data() {
        MatrixOf<T> a(rows, inner, flush), w(inner, columns, flush), second(rows, 3, flush), w2(3, columns, flush);
        MatrixOf<T> bias(1, columns, flush), skip(rows, columns, flush), out(rows, columns, flush);
        Guarded<T> panels(packed_size(inner, columns, k.panel), flush),
            panels2(packed_size(3, columns, k.panel), flush);
        k.pack(inner, columns, w.view(), panels.data());
        k.pack(3, columns, w2.view(), panels2.data());
        Guarded<T> across(packed_size(columns, inner, k.panel), flush),
            across2(packed_size(columns, 3, k.panel), flush);
        k.pack_transposed(inner, columns, w.view(), across.data());
        k.pack_transposed(3, columns, w2.view(), across2.data());
        // Every other case has no transposes at hand.
        const bool both = (rows + columns) % 2 == 0;
        const Source<T> sources[] = {{a.view(), panels.data(), inner, both ? across.data() : nullptr},
                                     {second.view(), panels2.data(), 3, both ? across2.data() : nullptr}};
        const Rows<T> identity = skip.view();
        ForwardArgs<T> args;
        args.rows = rows, args.columns = columns;
        args.sources = sources, args.n_sources = 2;
        args.bias = bias.data();
        args.identity = &identity, args.n_identity = 1;
        args.activation = find_activation("relu");
        args.out = out.mutable_view();
        k.forward(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
                T z = bias.at(0, j) + skip.at(i, j);
                for (std::int64_t s = 0; s < inner; ++s) z += a.at(i, s) * w.at(s, j);
                for (std::int64_t s = 0; s < 3; ++s) z += second.at(i, s) * w2.at(s, j);
                CHECK(out.at(i, j) == (z > 0 ? z : 0), "forward %s at %d %d", where().c_str(), int(i), int(j));
            }
        backward_data(w, out, skip);
    }

    // δ (rows, columns) through Wᵀ, with a mask of the activation that `saved` was the output of.
    void backward_data(MatrixOf<T>& w, MatrixOf<T>& saved, MatrixOf<T>& delta) {
        MatrixOf<T> before(rows, inner, flush), out(rows, inner, flush);
        Guarded<T> transposed(packed_size(columns, inner, k.panel), flush);
        k.pack_transposed(inner, columns, w.view(), transposed.data());
        Guarded<T> panels(packed_size(inner, columns, k.panel), flush);
        k.pack(inner, columns, w.view(), panels.data());
        const Source<T> source{delta.view(), transposed.data(), columns, panels.data()};
        BackwardDataArgs<T> args;
        args.rows = rows, args.columns = inner;
        args.sources = &source, args.n_sources = 1;
        args.activation = find_activation("relu");
        args.saved = before.view();
        args.out = out.mutable_view();
        k.backward_data(args);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t s = 0; s < inner; ++s) {
                T g = 0;
                for (std::int64_t j = 0; j < columns; ++j) g += delta.at(i, j) * w.at(s, j);
                CHECK(out.at(i, s) == (before.at(i, s) > 0 ? g : 0), "backward_data %s", where().c_str());
            }
        (void)saved;
    }

    void weights() {
        MatrixOf<T> a(rows, inner, flush), delta(rows, columns, flush), w(inner, columns, flush),
            bias(1, columns, flush);
        const std::int64_t size = packed_size(inner, columns, k.panel);
        Guarded<T> panels(size, flush), transposed(packed_size(columns, inner, k.panel), flush);
        Guarded<T> expected(packed_size(columns, inner, k.panel), flush);
        // Scratch is 64-byte aligned, and so ends where its vectors end.
        Guarded<T> sums(size, flush), room(k.stretch_room(rows, inner), flush);
        for (std::int64_t i = 0; i < size; ++i) sums[i] = 7;
        k.pack(inner, columns, w.view(), panels.data());
        k.pack_transposed(inner, columns, w.view(), transposed.data());
        MatrixOf<T> before(1, columns, flush);
        for (std::int64_t j = 0; j < columns; ++j) before.at(0, j) = bias.at(0, j);
        BackwardWeightsArgs<T> args;
        args.rows = rows, args.inner = inner, args.columns = columns;
        args.last_panel = panel_count(columns, k.panel);
        args.a = a.view(), args.delta = delta.view();
        args.has_bias = true;
        args.weight.value = panels.data(), args.bias.value = bias.data();
        args.operands.transposed = transposed.data();
        args.optimizer = find_optimizer("sgd");
        Hyper<T> hyper;
        hyper.lr = 1;
        args.weight_hyper = args.bias_hyper = &hyper;
        args.sums = sums.data(), args.room = room.data();
        args.waiting_panels = 2;
        k.backward_weights(args);
        MatrixOf<T> after(inner, columns, flush);
        k.unpack(inner, columns, panels.data(), after.mutable_view());
        for (std::int64_t j = 0; j < columns; ++j) {
            T sum = 0;
            for (std::int64_t i = 0; i < rows; ++i) sum += delta.at(i, j);
            CHECK(bias.at(0, j) == before.at(0, j) - sum, "bias %s", where().c_str());
            for (std::int64_t s = 0; s < inner; ++s) {
                T g = 0;
                for (std::int64_t i = 0; i < rows; ++i) g += a.at(i, s) * delta.at(i, j);
                CHECK(after.at(s, j) == w.at(s, j) - g, "weights %s at %d %d", where().c_str(), int(s), int(j));
            }
        }
        // What a panel has beyond the last column stays zero: norms of gradients are taken over whole panels.
        Guarded<T> padded(size, flush);
        k.pack(inner, columns, after.view(), padded.data());
        for (std::int64_t i = 0; i < size; ++i) CHECK(panels[i] == padded[i], "padding %s", where().c_str());
        k.pack_transposed(inner, columns, after.view(), expected.data());
        for (std::int64_t i = 0; i < expected.size(); ++i)
            CHECK(transposed[i] == expected[i], "transposed copy %s", where().c_str());
    }
};

template <class T>
void run(const KernelTable<T>& table, const char* isa) {
    for (Flush flush : {Flush::end, Flush::start}) {
        for (std::int64_t rows = 1; rows <= 30; ++rows)
            for (std::int64_t columns :
                 {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 18, 21, 31, 32, 33, 35, 37, 47, 48, 52, 63, 65, 70}) {
                Case<T> one{table, isa, rows, 1 + (rows * 7 + columns) % 37, columns, flush};
                one.forward_and_data();
                one.weights();
            }
        Case<T>{table, isa, 1100, 5, 3, flush}.weights();  // several stretches of rows
        for (std::int64_t columns : {1, 11, 31, 90}) {     // whose columns of A are laid out: a tile's rest, and none
            Case<T>{table, isa, 300, 67, columns, flush}.weights();
            Case<T>{table, isa, 129, 84, columns, flush}.weights();
        }
        Case<T>{table, isa, 90, 519, 40, flush}.weights();             // wide, and so laid out for one stretch
        Case<T>{table, isa, 3, 1100, 17, flush}.forward_and_data();    // several stretches of a sum
        Case<T>{table, isa, 260, 1100, 40, flush}.forward_and_data();  // several blocks of rows for all panels
        Case<T>{table, isa, 260, 40, 1100, flush}.forward_and_data();  // the same backward
    }
}

}  // namespace

int main() {
    each_isa([](const auto& kernels, const char* isa) { run(kernels, isa); });
    return summary("kernels");
}

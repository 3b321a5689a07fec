// Activations on every instruction set against the C library in long double: values, derivatives, NaN and infinities.
#include <cmath>
#include <vector>

#include "check.h"
#include "kernels/select.h"
#include "math/activation.h"

using namespace resnetcore;

namespace {

long double truth(const std::string& name, long double z) {
    if (name == "relu") return z > 0 ? z : 0;
    if (name == "leaky_relu") return z > 0 ? z : 0.01L * z;
    if (name == "elu") return z > 0 ? z : std::expm1(z);
    if (name == "gelu") return z * 0.5L * std::erfc(-z / std::sqrt(2.0L));
    if (name == "silu") return z / (1 + std::exp(-z));
    if (name == "tanh") return std::tanh(z);
    if (name == "sigmoid") return 1 / (1 + std::exp(-z));
    if (name == "softplus") return z > 20 ? z : std::log1p(std::exp(z));
    return z;
}

template <class T>
std::vector<T> apply(const KernelTable<T>& k, int activation, const std::vector<T>& z) {
    std::vector<T> out(z.size());
    const Rows<T> identity{z.data(), static_cast<std::int64_t>(z.size())};
    ForwardArgs<T> args;
    args.rows = 1;
    args.columns = static_cast<std::int64_t>(z.size());
    args.identity = &identity;
    args.n_identity = 1;
    args.activation = activation;
    args.out = {out.data(), args.columns};
    k.forward(args);
    return out;
}

template <class T>
void run(const KernelTable<T>& k, const char* isa, long double tolerance) {
    std::vector<T> z;
    for (int i = -4000; i <= 4000; ++i) z.push_back(static_cast<T>(i * 0.0127));
    for (T x : {T(1e-30), T(-1e-30), T(1e-6), T(-1e-6), T(88.5), T(-88.5), T(-103), T(200), T(-200)}) z.push_back(x);
    for (int a = 0; a < activation_count(); ++a) {
        const std::string name = activation_name(a);
        const std::vector<T> got = apply(k, a, z);
        for (std::size_t i = 0; i < z.size(); ++i) {
            const long double exact = truth(name, z[i]);
            // 1 + erf cancels for negative arguments of gelu, as it does in PyTorch; denormals may flush.
            const long double size = std::fmax(std::fabs(exact), name == "gelu" ? 0.2L * std::fabs(z[i]) : 1e-37L);
            CHECK(std::fabs(got[i] - exact) <= tolerance * size + 1e-37L, "%s %s(%g) = %g, not %Lg", isa, name.c_str(),
                  double(z[i]), double(got[i]), exact);
        }
        const std::vector<T> nan(40, std::nan(""));
        for (T x : apply(k, a, nan)) CHECK(x != x, "%s %s of NaN is %g", isa, name.c_str(), double(x));
        const T far = std::numeric_limits<T>::infinity();
        const T top = apply(k, a, std::vector<T>{far})[0];
        CHECK(top == (name == "tanh" || name == "sigmoid" ? T(1) : far), "%s %s(inf) = %g", isa, name.c_str(),
              double(top));
    }
}

}  // namespace

int main() {
    for (const Isa& isa : known_isas()) {
        if (!isa.compiled || !isa.supported) continue;
        run(*isa.f32, isa.name.c_str(), 1e-6L);
        run(*isa.f64, isa.name.c_str(), 1e-14L);
    }
    return summary("functions");
}

// What this machine can do at most: fused multiply-adds a second, and bytes read a second from memory and from the last
// cache, by THREADS threads. limits.py compiles it for the CPU it runs on.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
constexpr int bytes = 64;
#elif defined(__AVX__)
constexpr int bytes = 32;
#else
constexpr int bytes = 16;
#endif
typedef float Vector __attribute__((vector_size(bytes)));
typedef float Unaligned __attribute__((vector_size(bytes), aligned(4), may_alias));
constexpr int lanes = bytes / 4;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// work(i) for constants i: only so does the compiler keep an array of vectors in registers.
template <class Work, int... i>
void each(Work work, std::integer_sequence<int, i...>) {
    (work(i), ...);
}

// As many sums at once as hide the latency of an instruction, and fit the registers.
constexpr auto sums = std::make_integer_sequence<int, 12>();

float total(const Vector (&of)[12]) {
    float result = 0;
    for (const Vector& v : of)
        for (int i = 0; i < lanes; ++i) result += v[i];
    return result;
}

double multiply_adds() {
    constexpr int rounds = 100000000;
    Vector sum[12], a = 0.999f - Vector{}, b = 1e-3f - Vector{};
    for (int s = 0; s < 12; ++s) {
        sum[s] = static_cast<float>(s) - Vector{};
        asm volatile("" : "+x"(sum[s]));  // unknown to the compiler, which else takes 0.999 · 1 + 0.001 for no work
    }
    for (int i = 0; i < rounds; ++i) each([&](int s) { sum[s] = sum[s] * a + b; }, sums);
    if (total(sum) == 1) std::puts("");
    return 2.0 * 12 * lanes * rounds;
}

double read(const std::vector<float>& data, int passes) {
    Vector sum[12] = {};
    for (int pass = 0; pass < passes; ++pass)
        for (std::size_t i = 0; i + 12 * lanes <= data.size(); i += 12 * lanes)
            each([&](int s) { sum[s] += *reinterpret_cast<const Unaligned*>(data.data() + i + s * lanes); }, sums);
    if (total(sum) == 1) std::puts("");
    return 4.0 * static_cast<double>(data.size()) * passes;
}

// Work a second of all threads together, the best of some tries.
template <class Work>
double rate(int threads, Work work) {
    double best = 0;
    for (int attempt = 0; attempt < 4; ++attempt) {
        std::vector<double> done(threads);
        std::vector<std::thread> team;
        const double start = now();
        for (int t = 0; t < threads; ++t) team.emplace_back([&, t] { done[t] = work(t); });
        for (std::thread& thread : team) thread.join();
        double sum = 0;
        for (double d : done) sum += d;
        const double reached = sum / (now() - start);
        if (reached > best) best = reached;
    }
    return best;
}

// An array of `size` bytes for each thread.
double read_rate(int threads, std::size_t size, int passes) {
    std::vector<std::vector<float>> data(threads, std::vector<float>(size / 4, 1.0f));
    return rate(threads, [&](int t) { return read(data[t], passes); });
}

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    const std::size_t cache = std::strtoull(arguments[2], nullptr, 10);
    const double flops = rate(threads, [](int) { return multiply_adds(); });
    const double memory = read_rate(threads, std::size_t{256} << 20, 2);
    const double last_cache = read_rate(threads, cache / 2 / threads, 40);
    std::printf("{\"gflops\": %.1f, \"memory_gb_s\": %.1f, \"cache_gb_s\": %.1f}\n", flops / 1e9, memory / 1e9,
                last_cache / 1e9);
}

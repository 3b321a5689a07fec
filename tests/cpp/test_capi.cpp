// The C interface under the sanitizers: matrices flush against forbidden pages, a file with every byte damaged, several
// threads, and messages that belong to the thread whose call failed.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "capi/resnetcore.hpp"
#include "check.h"
#include "files/safetensors.h"
#include "matrices.h"

using namespace resnetcore;

namespace {

constexpr std::int64_t inputs = 3, width = 5, outputs = 2;
const std::string path =
    (std::filesystem::temp_directory_path() / ("test_capi." + std::to_string(getpid()) + ".safetensors")).string();

std::string layer(std::int64_t units, const char* norm, const char* skips) {
    return "{\"width\":" + std::to_string(units) + ",\"activation\":\"relu\",\"skips\":" + skips + ",\"norm\":" + norm +
           ",\"bias\":true,\"pre\":false,\"gate\":false,\"dropout\":0.0,\"branch_dropout\":0.0,\"init\":null,"
           "\"init_scale\":1.0,\"norm_init\":1.0,\"gate_bias\":-2.0}";
}

// A norm, a learned and a fixed skip: all that a file can have.
void write_network() {
    const std::string topology = "{\"version\":1,\"inputs\":3,\"dtype\":\"float32\",\"seed\":1,\"layers\":[" +
                                 layer(width, "\"batch\"", "{}") + "," + layer(width, "null", "{\"2\":\"learned\"}") +
                                 "," + layer(outputs, "null", "{\"3\":\"fixed\"}") + "]}";
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>> shapes = {
        {"1.weight", {inputs, width}},
        {"1.norm.weight", {width}},
        {"1.norm.bias", {width}},
        {"1.norm.running_mean", {width}},
        {"1.norm.running_var", {width}},
        {"2.weight", {width, width}},
        {"2.bias", {width}},
        {"2.skip.2.weight", {inputs, width}},
        {"3.weight", {width, outputs}},
        {"3.bias", {outputs}},
        {"3.skip.3.weight", {inputs, outputs}}};
    std::vector<std::vector<float>> values;
    std::vector<NamedTensor> tensors;
    for (const auto& [name, shape] : shapes) {
        std::int64_t size = 1;
        for (const std::int64_t extent : shape) size *= extent;
        values.emplace_back();
        for (std::int64_t i = 0; i < size; ++i) values.back().push_back(static_cast<float>(std::abs(real())));
        tensors.push_back({name, "F32", shape, values.back().data()});
    }
    write_safetensors(path, tensors, {{"resnetcore.network", topology}}, "test");
}

rc_network* load() {
    rc_network* network = nullptr;
    CHECK(rc_network_load(path.c_str(), &network) == RC_OK, "%s", rc_last_error());
    return network;
}

template <class T>
rc_matrix matrix(MatrixOf<T>& m) {
    return {m.data(), m.rows, m.columns, m.stride, sizeof(T) == 4 ? RC_FLOAT32 : RC_FLOAT64, RC_CPU};
}

template <class T>
void block(std::int64_t rows, std::int64_t inner, std::int64_t columns, Flush flush, std::int64_t gap) {
    using M = MatrixOf<T>;
    const std::string where = std::to_string(rows) + "×" + std::to_string(inner) + "×" + std::to_string(columns);
    M a(rows, inner, flush, M::Fill::integers, gap), w(inner, columns, flush, M::Fill::integers, gap);
    M skip(rows, columns, flush, M::Fill::integers, gap), bias(1, columns, flush);
    M out(rows, columns, flush, M::Fill::zeros, gap), grad(rows, columns, flush, M::Fill::integers, gap);
    M d_a(rows, inner, flush, M::Fill::zeros, gap), d_w(inner, columns, flush, M::Fill::zeros, gap);
    M d_bias(1, columns, flush, M::Fill::zeros), d_skip(rows, columns, flush, M::Fill::zeros, gap);
    const rc_matrix sources = matrix(a), identity = matrix(skip), g = matrix(grad);
    rc_matrix weights = matrix(w), b = matrix(bias), result = matrix(out);
    rc_matrix to_a = matrix(d_a), to_w = matrix(d_w), to_bias = matrix(d_bias), to_skip = matrix(d_skip);
    CHECK(rc_residual_forward(1, &sources, &weights, &b, 1, &identity, RC_RELU, &result) == RC_OK, "%s",
          rc_last_error());
    CHECK(rc_residual_backward(&g, &result, 1, &sources, &weights, &b, 1, &identity, RC_RELU, &to_a, &to_w, &to_bias,
                               &to_skip) == RC_OK,
          "%s", rc_last_error());
    const auto delta = [&](std::int64_t i, std::int64_t j) { return out.at(i, j) > 0 ? grad.at(i, j) : T(0); };
    for (std::int64_t j = 0; j < columns; ++j) {
        T of_bias = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
            T z = bias.at(0, j) + skip.at(i, j);
            for (std::int64_t k = 0; k < inner; ++k) z += a.at(i, k) * w.at(k, j);
            CHECK(out.at(i, j) == (z > 0 ? z : 0), "%s: a", where.c_str());
            CHECK(d_skip.at(i, j) == delta(i, j), "%s: δ", where.c_str());
            of_bias += delta(i, j);
        }
        CHECK(d_bias.at(0, j) == of_bias, "%s: db", where.c_str());
        for (std::int64_t k = 0; k < inner; ++k) {
            T of_weight = 0;
            for (std::int64_t i = 0; i < rows; ++i) of_weight += a.at(i, k) * delta(i, j);
            CHECK(d_w.at(k, j) == of_weight, "%s: dW", where.c_str());
        }
    }
    M before(inner, columns, flush, M::Fill::zeros);
    for (std::int64_t k = 0; k < inner; ++k)
        for (std::int64_t j = 0; j < columns; ++j) before.at(k, j) = w.at(k, j);
    CHECK(rc_residual_update(&g, &result, 1, &sources, &weights, &b, 1, &identity, RC_RELU, 0.5, nullptr, nullptr) ==
              RC_OK,
          "%s", rc_last_error());
    for (std::int64_t k = 0; k < inner; ++k)
        for (std::int64_t j = 0; j < columns; ++j)
            CHECK(w.at(k, j) == before.at(k, j) - T(0.5) * d_w.at(k, j), "%s: W", where.c_str());
    for (M* m : {&a, &w, &skip, &out, &d_a, &d_w, &d_skip}) CHECK(m->gaps_untouched(), "%s: gaps", where.c_str());
}

void blocks() {
    for (std::int64_t rows : {1, 2, 15, 33})
        for (std::int64_t inner : {1, 7, 32})
            for (std::int64_t columns : {1, 5, 16, 33})
                for (Flush flush : {Flush::end, Flush::start})
                    for (std::int64_t gap : {0, 3}) {
                        block<float>(rows, inner, columns, flush, gap);
                        block<double>(rows, inner, columns, flush, gap);
                    }
}

// Prediction, parameters and a step on memory that ends where a page does, with gaps between the rows.
void network_memory() {
    using M = MatrixOf<float>;
    for (Flush flush : {Flush::end, Flush::start})
        for (std::int64_t rows : {2, 17, 130})
            for (std::int64_t gap : {0, 3}) {
                rc_network* network = load();
                rc_trainer* trainer = nullptr;
                M x(rows, inputs, flush, M::Fill::reals, gap), out(rows, outputs, flush, M::Fill::zeros, gap);
                M weight(width, width, flush, M::Fill::reals, gap), back(width, width, flush, M::Fill::zeros, gap);
                const rc_matrix from = matrix(x);
                rc_matrix to = matrix(out), value = matrix(weight), again = matrix(back);
                const char* name = "2.weight";
                CHECK(rc_network_predict(network, &from, &to) == RC_OK, "%s", rc_last_error());
                CHECK(rc_network_set_parameters(network, 1, &name, &value) == RC_OK, "%s", rc_last_error());
                CHECK(rc_network_get_parameters(network, 1, &name, &again) == RC_OK, "%s", rc_last_error());
                CHECK(back.same_bits(weight) && back.gaps_untouched(), "a parameter in and out");
                const rc_training settings = rc_training_defaults(RC_CROSS_ENTROPY, RC_ADAM);
                CHECK(rc_trainer_create(network, &settings, &trainer) == RC_OK, "%s", rc_last_error());
                Guarded<std::int64_t> labels(rows, flush);
                for (std::int64_t i = 0; i < rows; ++i) labels[i] = i % outputs;
                const rc_matrix y = {labels.data(), rows, 1, 1, RC_INT64, RC_CPU};
                double loss = -1;
                CHECK(rc_trainer_step(trainer, &from, &y, nullptr, 0.01, &loss) == RC_OK, "%s", rc_last_error());
                CHECK(loss > 0 && rc_trainer_steps(trainer) == 1, "loss %g", loss);
                CHECK(x.gaps_untouched() && out.gaps_untouched() && weight.gaps_untouched(), "gaps");
                rc_network_free(network);
                rc_trainer_free(trainer);
            }
}

// An array that ends where a page does, whatever its length is said to be.
void class_weights() {
    rc_network* network = load();
    rc_trainer* trainer = nullptr;
    Guarded<double> weights(outputs, Flush::end);
    for (std::int64_t i = 0; i < outputs; ++i) weights[i] = 1;
    rc_training settings = rc_training_defaults(RC_CROSS_ENTROPY, RC_SGD);
    settings.class_weight = weights.data();
    settings.classes = outputs + 1;
    CHECK(rc_trainer_create(network, &settings, &trainer) == RC_SHAPE_ERROR, "one class too many");
    settings.classes = outputs;
    CHECK(rc_trainer_create(network, &settings, &trainer) == RC_OK, "%s", rc_last_error());
    rc_trainer_free(trainer);
    rc_network_free(network);
    std::vector<double> none;
    none.reserve(2);  // so that it points somewhere
    rc::Network other = rc::Network::load(path);
    CHECK(rc::Trainer(other, rc_training_defaults(RC_MSE, RC_SGD), none).steps() == 0, "no class weights");
}

std::string contents() {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// An error, or a network that runs; the sanitizers see what is lost or read beyond its end.
bool loads() {
    rc_network* network = nullptr;
    const rc_status status = rc_network_load(path.c_str(), &network);
    CHECK(status == RC_OK || (status == RC_CHECKPOINT_ERROR && network == nullptr), "%s", rc_last_error());
    if (status != RC_OK) return false;
    std::vector<float> x(static_cast<std::size_t>(rc_network_inputs(network)), 0.5f);
    std::vector<float> out(static_cast<std::size_t>(rc_network_outputs(network)));
    const rc_matrix from = {x.data(), 1, static_cast<std::int64_t>(x.size()), 0, RC_FLOAT32, RC_CPU};
    rc_matrix to = {out.data(), 1, static_cast<std::int64_t>(out.size()), 0, RC_FLOAT32, RC_CPU};
    CHECK(rc_network_predict(network, &from, &to) == RC_OK, "%s", rc_last_error());
    rc_network_free(network);
    return true;
}

void damaged_files() {
    const std::string sound = contents();
    CHECK(loads(), "the sound file");
    for (std::size_t length = 0; length < sound.size(); ++length) {
        put(sound.substr(0, length));
        CHECK(!loads(), "cut to %d bytes", static_cast<int>(length));
    }
    for (std::size_t at = 0; at < sound.size(); ++at)
        for (const char byte :
             {'\0', '\xff', '"', '}', static_cast<char>(sound[at] ^ 1), static_cast<char>(sound[at] ^ 8)}) {
            std::string damaged = sound;
            damaged[at] = byte;
            put(damaged);
            loads();
        }
    put(sound);
}

void threads() {
    rc_network* shared = load();
    rc_trainer* trainer = nullptr;
    const rc_training settings = rc_training_defaults(RC_MSE, RC_SGD);
    rc_network* trained = nullptr;
    CHECK(rc_network_copy(shared, &trained) == RC_OK, "%s", rc_last_error());
    CHECK(rc_trainer_create(trained, &settings, &trainer) == RC_OK, "%s", rc_last_error());
    std::vector<float> x(40 * inputs), y(40 * outputs, 0.25f), serial(40 * outputs);
    for (float& value : x) value = static_cast<float>(real());
    const rc_matrix from = {x.data(), 40, inputs, inputs, RC_FLOAT32, RC_CPU},
                    target = {y.data(), 40, outputs, outputs, RC_FLOAT32, RC_CPU};
    rc_matrix to = {serial.data(), 40, outputs, outputs, RC_FLOAT32, RC_CPU};
    CHECK(rc_network_predict(shared, &from, &to) == RC_OK, "%s", rc_last_error());
    std::vector<int> bad(4);
    std::vector<std::thread> all;
    for (int number = 0; number < 4; ++number)
        all.emplace_back([&, number] {
            const std::string mine = "n must be at least 1, got " + std::to_string(-number);
            for (int i = 0; i < 50; ++i) {
                std::vector<float> own(40 * outputs);
                rc_matrix out = {own.data(), 40, outputs, outputs, RC_FLOAT32, RC_CPU};
                bad[number] += rc_network_predict(shared, &from, &out) != RC_OK || own != serial;
                bad[number] += rc_trainer_step(trainer, &from, &target, nullptr, 0.01, nullptr) != RC_OK;
                rc_residual_forward(-number, &from, &from, nullptr, 0, nullptr, RC_RELU, &out);
                bad[number] += std::string(rc_last_error()).find(mine) == std::string::npos;
            }
        });
    for (std::thread& one : all) one.join();
    for (const int count : bad) CHECK(count == 0, "%d of a thread's calls", count);
    CHECK(rc_trainer_steps(trainer) == 200, "%d steps", static_cast<int>(rc_trainer_steps(trainer)));
    rc_network_free(shared);
    rc_network_free(trained);
    rc_trainer_free(trainer);
}

void saved_again() {
    const std::string before = contents();
    rc_network* network = load();
    CHECK(rc_network_save(network, path.c_str()) == RC_OK, "%s", rc_last_error());
    CHECK(contents() == before, "another file");
    rc_network_free(network);
}

}  // namespace

int main() {
    CHECK(rc_set_num_threads(2) == RC_OK && rc_get_num_threads() == 2, "%s", rc_last_error());
    write_network();
    blocks();
    network_memory();
    class_weights();
    saved_again();
    damaged_files();
    threads();
    unlink(path.c_str());
    return summary("capi");
}

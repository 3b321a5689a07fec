// resnetcore.h for C++17: handles that free themselves, exceptions for codes, matrices that own their memory.
//
// Nothing but inline calls of the C interface: one binary interface, whatever the compiler and its options.
#ifndef RESNETCORE_HPP
#define RESNETCORE_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "resnetcore.h"

namespace rc {

class Error : public std::runtime_error {
public:
    explicit Error(rc_status code) : std::runtime_error(rc_last_error()), code_(code) {}
    rc_status code() const { return code_; }

private:
    rc_status code_;
};

inline void check(rc_status status) {
    if (status != RC_OK) throw Error(status);
}

template <class T>
constexpr rc_dtype dtype_of() {
    using Element = std::remove_const_t<T>;
    static_assert(
        std::is_same_v<Element, float> || std::is_same_v<Element, double> || std::is_same_v<Element, std::int64_t>,
        "float, double or std::int64_t; other elements are an rc_matrix of their rc_dtype");
    return std::is_same_v<Element, float> ? RC_FLOAT32 : std::is_same_v<Element, double> ? RC_FLOAT64 : RC_INT64;
}

// "cpu", "cuda" or "cuda:1".
inline rc_device find_device(const std::string& name) {
    rc_device device = RC_CPU;
    check(rc_find_device(name.c_str(), &device));
    return device;
}

// Somebody else's rows, `stride` elements apart.
template <class T>
rc_matrix view(T* data, std::int64_t rows, std::int64_t columns, std::int64_t stride, rc_device device = RC_CPU) {
    return {const_cast<std::remove_const_t<T>*>(data), rows, columns, stride, dtype_of<T>(), device};
}
template <class T>
rc_matrix view(T* data, std::int64_t rows, std::int64_t columns) {
    return view(data, rows, columns, columns);
}
// Labels or weights, one a row.
template <class T>
rc_matrix column(const std::vector<T>& values) {
    return view(values.data(), static_cast<std::int64_t>(values.size()), 1);
}

// Rows one after the other.
template <class T>
class Matrix {
public:
    Matrix(std::int64_t rows, std::int64_t columns)
        : rows_(rows), columns_(columns), values_(static_cast<std::size_t>(rows * columns)) {}

    std::int64_t rows() const { return rows_; }
    std::int64_t columns() const { return columns_; }
    T* data() { return values_.data(); }
    const T* data() const { return values_.data(); }
    T& operator()(std::int64_t i, std::int64_t j) { return values_[static_cast<std::size_t>(i * columns_ + j)]; }
    const T& operator()(std::int64_t i, std::int64_t j) const {
        return values_[static_cast<std::size_t>(i * columns_ + j)];
    }
    operator rc_matrix() const { return view(values_.data(), rows_, columns_); }

private:
    std::int64_t rows_, columns_;
    std::vector<T> values_;
};

class Network {
public:
    static Network load(const std::string& path) {
        rc_network* network = nullptr;
        check(rc_network_load(path.c_str(), &network));
        return Network(network);
    }
    void save(const std::string& path) const { check(rc_network_save(get(), path.c_str())); }
    Network copy() const {
        rc_network* copy = nullptr;
        check(rc_network_copy(get(), &copy));
        return Network(copy);
    }
    // A copy on that device.
    Network to(rc_device device) const {
        rc_network* copy = nullptr;
        check(rc_network_copy_to(get(), device, &copy));
        return Network(copy);
    }

    std::int64_t inputs() const { return rc_network_inputs(get()); }
    std::int64_t outputs() const { return rc_network_outputs(get()); }
    std::int64_t layers() const { return rc_network_layers(get()); }
    rc_dtype dtype() const { return rc_network_dtype(get()); }
    rc_device device() const { return rc_network_device(get()); }

    // Outputs (logits), on the CPU; T is double for a network of float64.
    template <class T = float>
    Matrix<T> predict(const rc_matrix& x) const {
        Matrix<T> out(x.rows > 0 ? x.rows : 0, outputs());
        rc_matrix view = out;
        check(rc_network_predict(get(), &x, &view));
        return out;
    }

    // To where `out` is, in the order of a stream.
    void predict(const rc_matrix& x, rc_matrix out, rc_stream stream = nullptr) const {
        check(rc_network_predict_on(get(), &x, &out, stream));
    }

    std::vector<rc_parameter> parameters() const {
        std::vector<rc_parameter> all(static_cast<std::size_t>(rc_network_parameter_count(get())));
        for (std::size_t i = 0; i < all.size(); ++i)
            check(rc_network_parameter(get(), static_cast<std::int64_t>(i), &all[i]));
        return all;
    }
    template <class T = float>
    Matrix<T> parameter(const rc_parameter& which) const {
        Matrix<T> values(which.rows, which.columns);
        rc_matrix view = values;
        check(rc_network_get_parameters(get(), 1, &which.name, &view));
        return values;
    }
    void set_parameter(const std::string& name, const rc_matrix& values) {
        const char* text = name.c_str();
        check(rc_network_set_parameters(get(), 1, &text, &values));
    }

    // The C handle, which stays this object's.
    rc_network* get() const { return network_.get(); }

private:
    struct Free {
        void operator()(rc_network* network) const { rc_network_free(network); }
    };
    explicit Network(rc_network* network) : network_(network) {}

    std::unique_ptr<rc_network, Free> network_;
};

// Trains a network in place, which may be destroyed before its trainer.
class Trainer {
public:
    Trainer(Network& network, const rc_training& settings) {
        rc_trainer* trainer = nullptr;
        check(rc_trainer_create(network.get(), &settings, &trainer));
        trainer_.reset(trainer);
    }
    // For the cross entropies, with one weight a class; an empty vector is none.
    Trainer(Network& network, rc_training settings, const std::vector<double>& class_weight)
        : Trainer(network, weighted(settings, class_weight)) {}

    // One update; the loss of before it.
    double step(const rc_matrix& x, const rc_matrix& y, double lr, rc_stream stream = nullptr) {
        return step(x, y, nullptr, lr, stream);
    }
    double step(const rc_matrix& x, const rc_matrix& y, const rc_matrix& sample_weight, double lr,
                rc_stream stream = nullptr) {
        return step(x, y, &sample_weight, lr, stream);
    }
    std::int64_t steps() const { return rc_trainer_steps(trainer_.get()); }

private:
    struct Free {
        void operator()(rc_trainer* trainer) const { rc_trainer_free(trainer); }
    };
    static rc_training weighted(rc_training settings, const std::vector<double>& class_weight) {
        settings.class_weight = class_weight.empty() ? nullptr : class_weight.data();
        settings.classes = static_cast<std::int64_t>(class_weight.size());
        return settings;
    }
    double step(const rc_matrix& x, const rc_matrix& y, const rc_matrix* sample_weight, double lr, rc_stream stream) {
        double loss = 0;
        check(rc_trainer_step_on(trainer_.get(), &x, &y, sample_weight, lr, &loss, stream));
        return loss;
    }

    std::unique_ptr<rc_trainer, Free> trainer_;
};

}  // namespace rc

#endif  // RESNETCORE_HPP

#include "bindings/layer_dict.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "bindings/array.h"
#include "math/activation.h"

namespace py = pybind11;

namespace resnetcore {
namespace {

std::string at(std::int64_t number) { return "Network: layer " + std::to_string(number) + ": "; }
std::string shown(py::handle value) { return py::repr(value).cast<std::string>(); }

std::int64_t integer(py::handle value, std::int64_t number, const char* what) {
    return integer_argument(value, at(number) + what);
}

double real(py::handle value, std::int64_t number, const char* what) {
    if (PyBool_Check(value.ptr()) || !PyNumber_Check(value.ptr()))
        throw DTypeError(at(number) + what + " must be a number, got " + shown(value));
    const double result = PyFloat_AsDouble(value.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return result;
}

bool boolean(py::handle value, std::int64_t number, const char* what) {
    if (!PyBool_Check(value.ptr())) throw DTypeError(at(number) + what + " must be True or False, got " + shown(value));
    return value.ptr() == Py_True;
}

int activation(py::handle value, std::int64_t number) {
    if (value.is_none()) return find_activation("identity");
    std::string known;
    for (int i = 0; i < activation_count(); ++i) known += std::string(i ? ", " : "") + activation_name(i);
    if (!py::isinstance<py::str>(value))
        throw DTypeError(at(number) + "activation must be a name or None, got " + shown(value));
    const int id = find_activation(value.cast<std::string>());
    if (id < 0) throw ValueError(at(number) + "unknown activation " + shown(value) + "; known are " + known);
    return id;
}

bool batch_norm(py::handle value, std::int64_t number) {
    if (value.is_none()) return false;
    if (py::isinstance<py::str>(value) && value.cast<std::string>() == "batch") return true;
    throw ValueError(at(number) + "norm must be None or \"batch\", got " + shown(value));
}

Initialization initialization(py::handle value, std::int64_t number) {
    if (value.is_none()) return Initialization::by_activation;
    if (py::isinstance<py::str>(value))
        for (const auto& [name, scheme] : initializations)
            if (value.cast<std::string>() == name) return scheme;
    throw ValueError(at(number) + "init must be None, \"he\", \"glorot\", \"lecun\" or \"zero\", got " + shown(value));
}

// A fixed matrix is copied: what the user does with theirs afterwards changes nothing here.
Skip fixed_skip(py::handle value, std::int64_t number, const std::string& what) {
    const py::array any = py::array::ensure(value);
    if (!any) {
        PyErr_Clear();
        throw DTypeError(at(number) + what + " must be \"identity\", \"learned\" or a matrix, got " + shown(value));
    }
    if (any.dtype().kind() != 'f')
        throw DTypeError(at(number) + what + " must be a matrix of floats, got dtype " + shown(any.dtype()));
    if (any.ndim() != 2)
        throw ShapeError(at(number) + what + " must have 2 dimensions, got " + std::to_string(any.ndim()));
    const Dense<double> values = dense<double>(any);
    Skip skip;
    skip.kind = SkipKind::fixed;
    skip.rows = values.shape(0);
    skip.columns = values.shape(1);
    skip.matrix.assign(values.data(), values.data() + values.size());
    return skip;
}

Skip skip_of(py::handle key, py::handle value, std::int64_t number) {
    const std::int64_t back = integer(key, number, "the key of a skip");
    const std::string what = "skip " + std::to_string(back);
    Skip skip;
    if (!py::isinstance<py::str>(value)) {
        skip = fixed_skip(value, number, what);
    } else {
        const std::string kind = value.cast<std::string>();
        if (kind != "identity" && kind != "learned")
            throw ValueError(at(number) + what + " must be \"identity\", \"learned\" or a matrix, got " + shown(value));
        skip.kind = kind == "identity" ? SkipKind::identity : SkipKind::learned;
    }
    skip.back = back;
    return skip;
}

std::vector<Skip> skips_of(py::handle value, std::int64_t number) {
    if (value.is_none()) return {};
    if (!py::isinstance<py::dict>(value)) throw DTypeError(at(number) + "skips must be a dict, got " + shown(value));
    std::vector<Skip> skips;
    for (const auto& [key, kind] : py::reinterpret_borrow<py::dict>(value)) skips.push_back(skip_of(key, kind, number));
    std::sort(skips.begin(), skips.end(), [](const Skip& a, const Skip& b) { return a.back < b.back; });
    return skips;
}

}  // namespace

std::int64_t integer_argument(py::handle value, const std::string& what) {
    const bool is_index = PyIndex_Check(value.ptr()) && !PyBool_Check(value.ptr());
    if (!is_index) throw DTypeError(what + " must be an int, got " + shown(value));
    const auto whole = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!whole) throw py::error_already_set();
    int overflow = 0;
    const long long result = PyLong_AsLongLongAndOverflow(whole.ptr(), &overflow);
    if (overflow) throw ShapeError(what + " must be below 2**63, got " + shown(value));
    return result;
}

Layer layer_from_dict(const py::dict& description, std::int64_t number) {
    Layer layer;
    if (!description.contains("width")) throw ValueError(at(number) + "a width is needed");
    for (const auto& [key, value] : description) {
        const std::string name = py::str(key).cast<std::string>();
        if (name == "width")
            layer.width = integer(value, number, "width");
        else if (name == "activation")
            layer.activation = activation(value, number);
        else if (name == "norm")
            layer.batch_norm = batch_norm(value, number);
        else if (name == "bias")
            layer.bias = boolean(value, number, "bias");
        else if (name == "pre")
            layer.pre = boolean(value, number, "pre");
        else if (name == "gate")
            layer.gate = boolean(value, number, "gate");
        else if (name == "dropout")
            layer.dropout = real(value, number, "dropout");
        else if (name == "branch_dropout")
            layer.branch_dropout = real(value, number, "branch_dropout");
        else if (name == "skips")
            layer.skips = skips_of(value, number);
        else if (name == "init")
            layer.initialization = initialization(value, number);
        else if (name == "init_scale")
            layer.init_scale = real(value, number, "init_scale");
        else if (name == "norm_init")
            layer.norm_init = real(value, number, "norm_init");
        else if (name == "gate_bias")
            layer.gate_bias = real(value, number, "gate_bias");
        else
            throw ValueError(at(number) + "unknown key " + shown(key));
    }
    return layer;
}

py::dict layer_to_dict(const Layer& layer) {
    py::dict skips;
    for (const Skip& skip : layer.skips) {
        py::object kind;
        if (skip.kind == SkipKind::identity) kind = py::str("identity");
        if (skip.kind == SkipKind::learned) kind = py::str("learned");
        if (skip.kind == SkipKind::fixed) {
            py::array_t<double> matrix({skip.rows, skip.columns});
            std::copy(skip.matrix.begin(), skip.matrix.end(), matrix.mutable_data());
            kind = matrix;
        }
        skips[py::int_(skip.back)] = kind;
    }
    py::object init = py::none();
    for (const auto& [name, scheme] : initializations)
        if (scheme == layer.initialization) init = py::str(name);
    py::dict out;
    out["width"] = layer.width;
    out["activation"] = activation_name(layer.activation);
    out["norm"] = layer.batch_norm ? py::object(py::str("batch")) : py::object(py::none());
    out["bias"] = layer.bias;
    out["pre"] = layer.pre;
    out["gate"] = layer.gate;
    out["dropout"] = layer.dropout;
    out["branch_dropout"] = layer.branch_dropout;
    out["skips"] = skips;
    out["init"] = init;
    out["init_scale"] = layer.init_scale;
    out["norm_init"] = layer.norm_init;
    out["gate_bias"] = layer.gate_bias;
    return out;
}

}  // namespace resnetcore

"""Exported networks are sound ONNX, and compute in other programs what they compute here."""

import sys

import numpy as np
import pytest

import resnetcore as rc
from reference import ACTIVATIONS, Pass, distance
from resnetcore import _core
from strategies import random_case

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
# ONNX Runtime has float64 kernels for the others only (1.32).
FLOAT64_IN_ONNX_RUNTIME = ("identity", "relu", "silu", "tanh", "sigmoid")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


def runtime(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["y"], {"x": x})[0]


def evaluator(path):
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))

    def run(x):
        with np.errstate(over="ignore", invalid="ignore"):  # its sigmoid computes both halves of a where
            return session.run(["y"], {"x": x})[0]

    return run


def checked(path):
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path)


def operators(model):
    return [node.op_type for node in model.graph.node]


def rows(n, width, dtype="float32"):
    return np.random.default_rng(n).standard_normal((n, width)).astype(dtype)


def scaled_error(got, exact):
    return np.abs(got - exact).max(initial=0) / max(1, np.abs(exact).max(initial=0))


@pytest.mark.parametrize("fold_norm", [True, False])
@pytest.mark.parametrize("seed", range(50))
def test_random_networks_in_onnx_runtime(seed, fold_norm, path):
    net = random_case(seed).net
    net.export_onnx(path, fold_norm=fold_norm)
    checked(path)
    run = runtime(path)
    for batch in (1, 7, 1024):
        x = rows(batch, net.inputs)
        # Against the array's norm, as all comparisons here: network 9 is so conditioned that single elements of ours and
        # of ONNX Runtime's are each 1e-5 from float64.
        assert distance(run(x), net(x)) < 1e-5


@pytest.mark.parametrize("opset", [15, 20])
@pytest.mark.parametrize("seed", range(100, 110))
def test_random_networks_in_float64_in_the_reference_evaluator(seed, opset, path):
    case = random_case(seed)
    net, x, _ = case.in_precision("float64")
    net.export_onnx(path, fold_norm=seed % 2 == 0, opset=opset)
    assert checked(path).opset_import[0].version == opset
    truth = Pass(case.layers, {**net.parameters(), **net.buffers()}, x, training=False, dtype=np.longdouble).a[-1]
    # Files keep attributes, such as leaky_relu's slope and the norms' epsilon, as float32.
    assert scaled_error(evaluator(path)(x), truth) < 1e-6


@pytest.mark.parametrize("opset", [15, 20, 22])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, dtype, opset, path):
    net = rc.Network(4, [rc.Layer(4, activation=activation)], dtype=dtype)
    net.set_parameters({"1.weight": np.eye(4, dtype=dtype)})
    net.export_onnx(path, opset=opset)
    checked(path)
    x = np.linspace(-30, 30, 400, dtype=dtype).reshape(-1, 4)
    exact = ACTIVATIONS[activation][0](x.astype("float64"))
    bound = 1e-6 if dtype == "float32" else 1e-8
    assert np.abs(evaluator(path)(x) - exact).max() < bound * 30
    if dtype == "float32" or activation in FLOAT64_IN_ONNX_RUNTIME:
        assert np.abs(runtime(path)(x) - exact).max() < bound * 30


def test_names_versions_and_dimensions(path):
    net = random_case(4).net
    net.export_onnx(path, fold_norm=False)
    model = checked(path)
    assert (model.producer_name, model.producer_version) == ("resnetcore", _core.build_info()["version"])
    (x,), (y,) = model.graph.input, model.graph.output
    for value, name, width in ((x, "x", net.inputs), (y, "y", net.outputs)):
        batch, columns = value.type.tensor_type.shape.dim
        assert (value.name, batch.dim_param, columns.dim_value) == (name, "batch", width)
    written = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    arrays = {**net.parameters(), **net.buffers()}
    assert written.keys() - arrays.keys() <= {"one"}
    assert arrays.keys() <= written.keys()
    assert all(np.array_equal(written[name], array) for name, array in arrays.items())


def test_norms_are_folded_or_kept(path):
    layers = [rc.Layer(8, norm="batch"), rc.Layer(8, norm="batch", pre=True, dropout=0.5)]
    net = rc.Network(5, layers, seed=1)
    net.export_onnx(path)
    assert operators(checked(path)).count("BatchNormalization") == 1  # before an activation nothing can be folded
    net.export_onnx(path, fold_norm=False)
    kinds = operators(checked(path))
    assert kinds.count("BatchNormalization") == 2
    assert "Dropout" not in kinds


def test_a_network_that_has_diverged_is_written_without_a_warning(path):
    net = rc.Network(2, [rc.Layer(2, norm="batch", activation=None)])
    net.set_parameters({"1.weight": np.full((2, 2), np.inf), "1.norm.weight": np.zeros(2)})
    net.export_onnx(path)
    assert np.isnan(evaluator(path)(rows(3, 2))).all()


def test_every_kind_of_layer_is_there(path):
    fixed = rows(6, 6)
    layers = [
        rc.Layer(6, activation="silu"),
        rc.Layer(6, skips={2: "identity"}),
        rc.Layer(6, skips={2: "learned", 3: fixed}),
        rc.Layer(6, gate=True, activation="gelu"),
        rc.Layer(2, activation=None, bias=False),
    ]
    net = rc.Network(6, layers, seed=2)
    net.export_onnx(path)
    model = checked(path)
    written = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert np.array_equal(written["3.skip.3.weight"], fixed)
    assert operators(model).count("Gemm") == 8 and "Concat" not in operators(model)
    x = rows(9, 6)
    assert scaled_error(evaluator(path)(x), net(x)) < 1e-6


@pytest.mark.parametrize("precision", [{"dtype": "bfloat16"}, {"matmul_precision": "medium"}])
def test_lower_precisions_are_exported_as_float32(precision, path):
    net = rc.Network(6, [rc.Layer(8), rc.Layer(3, activation=None)], seed=3, **precision)
    net.export_onnx(path)
    model = checked(path)
    assert {i.data_type for i in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert {p.key: p.value for p in model.metadata_props} == {"resnetcore.precision": net.precision}
    x = rows(20, 6)
    assert scaled_error(evaluator(path)(x), net.astype("float32", "highest")(x)) < 1e-6


def test_the_same_network_gives_the_same_bytes(path):
    net = random_case(8).net
    net.export_onnx(path)
    first = path.read_bytes()
    rc.onnx.export(net.copy(), str(path))
    assert path.read_bytes() == first


@pytest.mark.parametrize("opset", [14, 10_000, -1])
def test_opsets_that_are_not_known(opset, path):
    with pytest.raises(ValueError, match=f"onnx.export: opset must be from 15 to .*, got {opset}"):
        rc.Network(3, [rc.Layer(2)]).export_onnx(path, opset=opset)
    assert not path.exists()


def test_arguments_of_the_wrong_type(path):
    net = rc.Network(3, [rc.Layer(2)])
    with pytest.raises(rc.DTypeError, match=r"net must be a resnetcore\.Network, got list"):
        rc.onnx.export([net], path)
    with pytest.raises(rc.DTypeError, match="fold_norm must be True or False, got 1"):
        net.export_onnx(path, fold_norm=1)
    with pytest.raises(rc.DTypeError, match="opset must be an int, got '20'"):
        net.export_onnx(path, opset="20")
    assert not path.exists()


def test_a_failed_write_leaves_the_old_file(path, tmp_path, monkeypatch):
    net = rc.Network(3, [rc.Layer(2)])
    net.export_onnx(path)
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnetcore._atomic._write", full)
    with pytest.raises(OSError, match="No space"):
        rc.Network(3, [rc.Layer(9)]).export_onnx(path)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    with pytest.raises(IsADirectoryError):
        net.export_onnx(tmp_path)


def test_without_onnx_the_command_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'resnetcore\[onnx\]'"):
        rc.Network(3, [rc.Layer(2)]).export_onnx(path)

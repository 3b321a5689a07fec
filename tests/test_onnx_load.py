"""ONNX models that are loaded compute what they computed; what is no network is refused by its first node."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest

import resnetcore as rc
from reference import ACTIVATIONS, distance
from strategies import random_case

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(0)
WEIGHTS = {
    "W": RNG.standard_normal((4, 4)),
    "V": RNG.standard_normal((4, 4)),
    "U": RNG.standard_normal((4, 3)),
    "Wide": RNG.standard_normal((8, 4)),
    "b": RNG.standard_normal(4),
    "c": RNG.standard_normal((1, 4)),
    "positive": RNG.uniform(0.5, 2, 4),
    "one": np.array(1.0),
    "half": np.array(0.5),
    "twenty": np.array(20.0),
    "ten": np.array(10.0),
    "true": np.array(True),
    "Deep": RNG.standard_normal((1, 1, 4)),
    "root": np.array([np.sqrt(2)]),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


def rows(n, width, dtype="float32"):
    return np.random.default_rng(n).standard_normal((n, width)).astype(dtype)


def model_of(text, dtype="float32", opset=24, weights=WEIGHTS):
    """A model of nodes in ONNX's own text form, from "x", (batch, 4), to "y"."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [onnx.parser.parse_node(line) for line in text.strip().splitlines()]
    for number, node in enumerate(nodes, 1):
        node.name = f"n{number}"
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 4])],
        [helper.make_tensor_value_info("y", kind, ["batch", "outputs"])],
        [
            numpy_helper.from_array(a if a.dtype == bool else a.astype(dtype), name)
            for name, a in weights.items()
            if name in used
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def evaluated(model, x):
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("seed", range(50))
def test_random_networks_there_and_back(seed, path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    net = random_case(seed).net
    net.export_onnx(path, fold_norm=seed % 2 == 0)
    onnx.checker.check_model(str(path), full_check=True)
    loaded = rc.onnx.load(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert [layer.width for layer in loaded.layers] == [layer.width for layer in net.layers]
    for batch in (1, 7, 1024):
        x = rows(batch, net.inputs)
        assert distance(loaded(x), net(x)) < 1e-5
        assert distance(loaded(x), session.run(["y"], {"x": x})[0]) < 1e-5


@pytest.mark.parametrize("opset", [15, 20])
@pytest.mark.parametrize("seed", range(100, 110))
def test_float64_and_older_operators(seed, opset, path):
    net, x, _ = random_case(seed).in_precision("float64")
    net.export_onnx(path, fold_norm=seed % 2 == 0, opset=opset)
    loaded = rc.onnx.load(str(path))
    assert loaded.precision == "float64"
    assert distance(loaded(x), net(x)) < 1e-12


@pytest.mark.parametrize("opset", [15, 20])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, opset, path):
    rc.Network(4, [rc.Layer(4, activation=activation)]).export_onnx(path, opset=opset)
    assert rc.onnx.load(path).layers == (rc.Layer(4, activation=activation),)


def test_layers_and_numbers_come_back_as_they_were(path):
    layers = [
        rc.Layer(6, activation="silu"),
        rc.Layer(6, norm="batch", skips={2: "identity"}),
        rc.Layer(6, skips={2: "learned", 3: "learned"}),
        rc.Layer(6, gate=True, activation="gelu"),
        rc.Layer(5, norm="batch", pre=True, skips={4: "learned"}),
        rc.Layer(2, activation=None, bias=False),
    ]
    net = rc.Network(6, layers, seed=2)
    net.export_onnx(path, fold_norm=False)
    loaded = rc.onnx.load(onnx.load(path))
    assert loaded.layers == net.layers
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert np.array_equal({**loaded.parameters(), **loaded.buffers()}[name], array), name


# As PyTorch's exporters, and others, write them.
SPELLINGS = {
    "MatMul, Add": ("h = MatMul(x, W)\ny = Add(h, b)", [rc.Layer(4, None)]),
    "two biases": ("h = Gemm(x, W, b)\ny = Add(h, c)", [rc.Layer(4, None)]),
    "a bias first": ("h = MatMul(x, W)\ny = Add(c, h)", [rc.Layer(4, None)]),
    "Gemm's attributes": ("y = Gemm <alpha: float = 0.5, beta: float = 2.0, transB: int = 1> (x, W, b)", None),
    "Gemm adds a value": (
        "h = Gemm(x, W, b)\ng = Relu(h)\ny = Gemm(g, V, x)",
        [rc.Layer(4), rc.Layer(4, None, skips={2: "identity"})],
    ),
    "a constant's transpose": ("w = Transpose <perm: ints = [1, 0]> (W)\nv = Identity(w)\ny = MatMul(x, v)", None),
    "Concat": (
        "h = Gemm(x, W, b)\ng = Relu(h)\nk = Concat <axis: int = -1> (g, x)\nz = MatMul(k, Wide)\ny = Add(z, b)",
        [rc.Layer(4), rc.Layer(4, None, skips={2: "learned"})],
    ),
    "Sum": ("h = Gemm(x, W, b)\ng = Relu(h)\nz = MatMul(g, V)\ny = Sum(x, b, z)", None),
    "silu": ("h = MatMul(x, W)\ns = Sigmoid(h)\ny = Mul(h, s)", [rc.Layer(4, "silu", bias=False)]),
    "Swish": ("h = MatMul(x, W)\ny = Swish(h)", [rc.Layer(4, "silu", bias=False)]),
    "gelu, 0.5 last": (
        "h = Gemm(x, W)\nd = Div(h, root)\ne = Erf(d)\np = Add(e, one)\nm = Mul(h, p)\ny = Mul(m, half)",
        [rc.Layer(4, "gelu", bias=False)],
    ),
    "gelu, 0.5 first": (
        "h = Gemm(x, W)\nd = Div(h, root)\ne = Erf(d)\np = Add(one, e)\nm = Mul(half, h)\ny = Mul(m, p)",
        [rc.Layer(4, "gelu", bias=False)],
    ),
    "gelu, 0.5 within": (
        "h = Gemm(x, W)\nd = Div(h, root)\ne = Erf(d)\np = Add(e, one)\nm = Mul(half, p)\ny = Mul(h, m)",
        [rc.Layer(4, "gelu", bias=False)],
    ),
    "softplus cut off": (
        "h = Gemm(x, W)\ns = Softplus(h)\na = Greater(h, twenty)\ny = Where(a, h, s)",
        [rc.Layer(4, "softplus", bias=False)],
    ),
    "a gate, other orders": (
        "s = Gemm(x, V, b)\nt = Sigmoid(s)\nh = Gemm(x, W)\ng = Tanh(h)\nr = Sub(one, t)\nu = Mul(x, r)\nv = Mul(g, t)\n"
        "y = Add(u, v)",
        [rc.Layer(4, "tanh", gate=True, bias=False)],
    ),
    "a bias before a norm": (
        "h = Gemm(x, W, b)\nn = BatchNormalization <epsilon: float = 0.001> (h, b, b, b, positive)\ny = Relu(n)",
        [rc.Layer(4, norm="batch")],
    ),
    "biases of a sum": (
        "h = Gemm(x, W)\ng = Relu(h)\ni = Gemm(g, V, b)\nn = BatchNormalization(i, b, b, b, positive)\n"
        "j = Gemm(x, W, b)\nk = Add(j, n)\nl = Add(k, c)\ny = Relu(l)",
        [rc.Layer(4, bias=False), rc.Layer(4, norm="batch", skips={2: "learned"})],
    ),
    "no-ops": (
        "i = Identity(x)\nf = Flatten(i)\nh = Gemm(f, W, b)\nr = Relu(h)\nd = Dropout(r)\ny = Identity(d)",
        [rc.Layer(4)],
    ),
    "a number added to all": ("h = Gemm(x, W)\ng = Tanh(h)\nz = Gemm(g, V)\ny = Add(z, half)", None),
    "a norm and an activation before a product": (
        "h = Gemm(x, W)\na = Add(h, b)\ng = Tanh(a)\nk = Gemm(g, V)\nr = Add(k, x)\n"
        "n = BatchNormalization(r, b, b, b, positive)\nt = Relu(n)\ny = Gemm(t, U)",
        [rc.Layer(4, "tanh"), rc.Layer(4, None, bias=False, skips={2: "identity"}), rc.Layer(3, norm="batch", pre=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_other_programs_spellings(name, dtype):
    text, layers = SPELLINGS[name]
    model = model_of(text, dtype)
    onnx.checker.check_model(model, full_check=True)
    net = rc.onnx.load(model)
    x = rows(9, 4, dtype)
    assert distance(net(x), evaluated(model, x)) < (
        1e-6 if dtype == "float32" else 1e-7
    )  # attributes and its erf are less exact
    if layers is not None:
        assert [replace(layer, bias=True) for layer in net.layers] == [replace(layer, bias=True) for layer in layers]


def test_constant_nodes():
    model = model_of(
        "s = Constant <value_floats: floats = [1.5, -0.5, 0.25, 2.0]> ()\nh = MatMul(x, W)\nk = Add(h, s)\nd = Sigmoid(k)\n"
        "o = Constant <value = float {1.0}> ()\nt = Constant <value_float = 20.0> ()\ng = Gemm(d, V)\np = Softplus(g)\n"
        "a = Greater(g, t)\nw = Where(a, g, p)\ny = Mul(w, o)"
    )
    net = rc.onnx.load(model)
    x = rows(9, 4)
    assert net.layers == (rc.Layer(4, "sigmoid"), rc.Layer(4, "softplus", bias=False))
    assert distance(net(x), evaluated(model, x)) < 1e-6


def test_the_inputs_width_may_be_a_name():
    model = model_of("k = Concat <axis: int = 1> (x, x)\ny = MatMul(k, Wide)")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    with pytest.raises(
        rc.ConversionError, match=r"node 'n1' .Concat. concatenates the input before a product has told"
    ):
        rc.onnx.load(model)
    model = model_of("h = Tanh(x)\nz = MatMul(h, W)\ny = Relu(z)")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    with pytest.raises(rc.ConversionError, match=r"node 'n2' .MatMul. multiplies node 'n1' .Tanh., and an activation"):
        rc.onnx.load(model)
    model = model_of("h = Tanh(x)\ny = MatMul(h, U)")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    net = rc.onnx.load(model)
    assert (net.inputs, net.layers) == (4, (rc.Layer(3, "tanh", pre=True, bias=False),))


REFUSED = {
    "h = MatMul(x, W)\ny = Softmax(h)": r"node 'n2' \(Softmax\) is not known; known are Add, BatchNormalization, Concat",
    "h = com.microsoft.Gelu(x)\ny = Gemm(h, W)": r"node 'n1' \(Gelu\) is not known",
    "y = Gelu <approximate: string = \"tanh\"> (x)": "node 'n1' .Gelu. must have approximate=none, as gelu has here, got tanh",
    "h = MatMul(x, W)\ny = LeakyRelu <alpha: float = 0.2> (h)": "must have alpha=0.01, as leaky_relu has here, got 0.2",
    "h = MatMul(x, W)\ny = MatMul(h, x)": "node 'n2' .MatMul. multiplies two values by each other as matrices",
    "h = MatMul(W, x)\ny = Relu(h)": "node 'n1' .MatMul. is applied to a constant",
    "y = MatMul(x, Wide)": "node 'n1' .MatMul. needs 8 columns, and the input gives 4",
    "y = MatMul(x, b)": r"must be a matrix \(in, out\), got shape \(4,\)",
    "h = MatMul(x, W)\ny = Add(h, Deep)": r"must have at most 2 dimensions, got shape \(1, 1, 4\)",
    "y = Gemm <transA: int = 1> (x, W)": "transposes its input",
    "y = Gemm <alpha: int = 1> (x, W)": "has the attribute 'alpha' = 1; known are alpha, beta",
    "h = MatMul(x, U)\ny = Add(h, b)": "node 'n2' .Add. needs 4 columns, and node 'n1' .MatMul. gives 3",
    "h = MatMul(x, U)\ny = Add(h, x)": "node 'n2' .Add. needs 4 columns, and node 'n1' .MatMul. gives 3",
    "h = Gemm(x, W)\nr = Relu(h)\ny = Add(x, r)": "node 'n3' .Add. takes the input and node 'n2' .Relu., and there is no product",
    "h = Gemm(x, W)\ny = Add(h, x)": "node 'n2' .Add. adds the input, a second term of the input; a layer reads each once",
    "h = Gemm(x, W)\nm = Mul(h, half)\ny = Add(m, x)": "node 'n2' .Mul. multiplies by a constant",
    "h = Gemm(x, W)\ny = Mul(h, b)": "node 'n2' .Mul. must have one number for all columns",
    "h = Gemm(x, W)\ny = Mul(h, x)": "node 'n2' .Mul. multiplies two values, and they are neither a gate",
    "h = Gemm(x, W)\ny = Sub(h, x)": "node 'n2' .Sub. subtracts a value from another",
    "h = Gemm(x, W)\ny = Div(half, h)": "node 'n2' .Div. divides by a value",
    "h = Gemm(x, W)\ny = Erf(h)": "node 'n2' .Erf. is part of no activation that is known: identity, relu",
    "h = Gemm(x, W)\na = Relu(h)\ng = Tanh(a)\nk = Gemm(g, V)\ny = Relu(k)": (
        "node 'n4' .Gemm. multiplies node 'n3' .Tanh., and an activation, a norm or a gate comes after it"
    ),
    "h = Gemm(x, W)\na = Relu(h)\ny = Concat <axis: int = 1> (a, x)": "node 'n3' .Concat. concatenates for something other",
    "h = Gemm(x, W)\ny = Concat <axis: int = 0> (h, x)": "concatenates along axis 0; columns are axis 1",
    "y = Flatten <axis: int = 0> (x)": "flattens along axis 0",
    "y = Transpose(x)": "transposes something other than a constant matrix",
    "y = Identity(x)": "the output is the input itself; a network has at least one layer",
    "y = Identity(W)": "the output is a constant",
    "y, m, v = BatchNormalization <training_mode: int = 1> (x, b, b, b, positive)": "is in training mode",
    "y = BatchNormalization(x, b, b, b, b)": "normalises by a variance that must be at least 0",
    "h = Gemm(x, W)\ns = Sigmoid(h)\nr = Sub(one, s)\nu = Mul(r, x)\nv = Mul(s, x)\ny = Add(u, v)": "node 'n6' .Add. takes",
    "h = Gemm(x, W)\na = Relu(h)\ns = Gemm(a, V)\nt = Sigmoid(s)\nk = Gemm(a, W)\nr = Sub(one, t)\nu = Mul(r, x)\nv = Mul(t, k)\n"
    "y = Add(u, v)": "node 'n9' .Add. gates with another value than the output of the layer before it",
    "s = Gemm(x, V)\nt = Sigmoid(s)\nk = Gemm(x, W)\nr = Sub(half, t)\nu = Mul(r, x)\nv = Mul(t, k)\ny = Add(u, v)": (
        "node 'n5' .Mul. multiplies two values, and they are neither a gate"
    ),
    "h = Gemm(x, W)\ns = Softplus(h)\na = Greater(h, ten)\ny = Where(a, h, s)": "node 'n4' .Where. chooses between values",
    "h = Gemm(x, W)\ns = Softplus(h)\na = Greater(h, twenty)\ny = Where(a, s, h)": "node 'n4' .Where. chooses between values",
    "h = Gemm(x, W)\na = Relu(h)\nk = Gemm(x, V)\nn = BatchNormalization(k, b, b, b, positive)\ny = Gemm(a, W, n)": (
        "node 'n5' .Gemm. adds node 'n4' .BatchNormalization., a skip, which can have neither norm nor dropout"
    ),
    "c = Constant <value_float: int = 3> ()\ny = Add(x, c)": "node 'n1' .Constant. must have one attribute of value, value_float",
    "c = Constant <value: float = 3.0> ()\ny = Add(x, c)": "must have one attribute of value, value_float",
    "c = Constant <value_string: string = \"3\"> ()\ny = Add(x, c)": "must have one attribute of value, value_float",
    "y = Relu <zzz: type_proto = float[4]> (x)": "has the attribute 'zzz' = None; known are none",
    "h = Dropout(x, half, true)\ny = Gemm(h, W)": "node 'n1' .Dropout. is in training mode, or may be",
    "h = Gemm(x, W)\na = Relu(h)\nk = Gemm(x, V)\ns = Tanh(k)\nl = Gemm(a, W)\nm = Gemm(s, V, l)\ny = Relu(m)": (
        "node 'n7' .Relu. adds node 'n2' .Relu., which is no output of a layer on the way to it"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_network_is_refused_by_its_first_node(text):
    with pytest.raises(rc.ConversionError, match=REFUSED[text]) as caught:
        rc.onnx.load(model_of(text))
    assert str(caught.value).startswith("onnx.load: ")


def module_of_every_kind(width=64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn, F = torch.nn, torch.nn.functional

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.linears = nn.ModuleList(nn.Linear(n, width) for n in (6, *[width] * 5))
            self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
            self.wide, self.out = nn.Linear(2 * width, width, bias=False), nn.Linear(width, 3)
            self.drop = nn.Dropout(0.25)

        def forward(self, x):
            a, b, c, d, e, f = self.linears
            x = self.drop(F.gelu(self.norms[0](a(x))))
            y = F.silu(b(x))
            z = F.softplus(self.wide(torch.cat([x, y], 1)))
            t = torch.sigmoid(c(z))
            z = t * F.leaky_relu(d(z)) + (1 - t) * z
            z = z + f(torch.tanh(e(F.elu(self.norms[1](z)))))
            return self.out(torch.flatten(z, 1))

    torch.manual_seed(0)
    module = Module()
    for _ in range(3):
        module(3 * torch.randn(50, 6))  # running statistics that are not those of a new module
    return module.eval()


@pytest.mark.filterwarnings("ignore")  # of the exporter's own age
@pytest.mark.parametrize("dynamo", [True, False])
def test_what_pytorch_exports(dynamo, path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if dynamo:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
    module, x = module_of_every_kind(), rows(40, 6)
    torch.onnx.export(module, (torch.from_numpy(x),), path, dynamo=dynamo, opset_version=18, verbose=False)
    assert path.with_name("net.onnx.data").exists() == dynamo  # weights of some size, outside the file
    net = rc.onnx.load(path)
    assert distance(net(x), module(torch.from_numpy(x)).detach().numpy()) < 1e-5
    assert [layer.activation for layer in net.layers] == [
        "gelu", "silu", "softplus", "leaky_relu", "elu", "tanh", "identity"
    ]  # fmt: skip


def test_damaged_files(path):
    layers = [rc.Layer(4, norm="batch"), rc.Layer(4, skips={2: "identity"}), rc.Layer(2, activation="gelu")]
    rc.Network(4, layers, seed=1).export_onnx(path, fold_norm=False, opset=15)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(500):
        bytes_ = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            bytes_[rng.integers(len(whole))] = rng.integers(256)
        damaged.append(bytes(bytes_))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            rc.onnx.load(path)
        except (rc.CheckpointError, rc.ConversionError):
            refused += 1
    assert refused > len(damaged) / 3  # the others differ in a weight or in a text


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not ONNX" * 20, bytes(range(256))])
def test_what_is_no_onnx_file(content, path):
    path.write_bytes(content)
    with pytest.raises(rc.CheckpointError, match="no ONNX file"):
        rc.onnx.load(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        rc.onnx.load(tmp_path / "none.onnx")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OSError):
            rc.onnx.load(path)
    with pytest.raises(rc.DTypeError, match=r"expected a path or an onnx\.ModelProto, got int"):
        rc.onnx.load(3)


def test_hostile_graphs():
    def refused(change, message, error=rc.CheckpointError):
        model = model_of("h = Gemm(x, W, b)\ny = Relu(h)")
        change(model)
        with pytest.raises(error, match=message):
            rc.onnx.load(model)

    def tensor(**settings):
        def change(model):
            weight = model.graph.initializer[0]
            for name, value in settings.items():
                if name == "dims":
                    del weight.dims[:]
                    weight.dims.extend(value)
                else:
                    setattr(weight, name, value)

        return change

    refused(tensor(dims=[2**62, 4]), f"'W' must hold {2**66} bytes for the shape .*, got 64")
    refused(tensor(dims=[-4, -4]), r"'W' has the shape \(-4, -4\)")
    refused(tensor(dims=[0, 4], raw_data=b""), "must be a matrix", rc.ConversionError)
    refused(tensor(data_type=10), "'W' must be of FLOAT, INT32, .*, got data type 10")
    refused(tensor(data_type=11, dims=[4, 2]), "W must be float32 as the input, got float64")
    refused(lambda m: m.graph.initializer.append(m.graph.initializer[0]), "initialisers of different names")
    refused(lambda m: m.graph.node.reverse(), "reads 'h', which nothing before it gives")
    refused(lambda m: m.graph.node.append(m.graph.node[0]), "must give one value that no other node gives")
    refused(lambda m: m.graph.node[0].input.extend(["b"] * 9), "has 12 inputs, which is no number of them")
    refused(lambda m: m.graph.node[1].ClearField("input"), "has 0 inputs")
    refused(lambda m: m.opset_import[0].ClearField("version"), "opset from 13 to .*, got 0")
    refused(lambda m: m.ClearField("opset_import"), "one version of ONNX's operators")
    refused(
        lambda m: m.graph.input.append(m.graph.output[0]), "one input and one output, got 2 and 1", rc.ConversionError
    )
    refused(lambda m: m.graph.ClearField("output"), "got 1 and 0", rc.ConversionError)
    shape = helper.make_tensor_value_info("x", 1, ["b", 2, 2]).type
    refused(lambda m: m.graph.input[0].type.CopyFrom(shape), "must have 2 dimensions", rc.ConversionError)
    integers = helper.make_tensor_value_info("x", 7, ["b", 4]).type
    refused(
        lambda m: m.graph.input[0].type.CopyFrom(integers), "FLOAT or DOUBLE, got element type 7", rc.ConversionError
    )


def test_external_data(path, tmp_path):
    net = rc.Network(16, [rc.Layer(16), rc.Layer(16, skips={2: "learned"}), rc.Layer(3)], seed=1)
    net.export_onnx(path)
    x = rows(9, net.inputs)
    separate = tmp_path / "separate.onnx"
    onnx.save(onnx.load(path), separate, save_as_external_data=True, location="w.data", size_threshold=0)
    assert distance(rc.onnx.load(separate)(x), net(x)) < 1e-5
    model = onnx.load(separate, load_external_data=False)
    with pytest.raises(rc.CheckpointError, match=r"is in another file, 'w\.data': give the model's path"):
        rc.onnx.load(model)

    def refused(message, error=rc.CheckpointError, **entries):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for one in changed.graph.initializer:
            for entry in one.external_data:
                entry.value = entries.get(entry.key, entry.value)
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(error, match=message):
            rc.onnx.load(path)

    os.mkfifo(tmp_path / "fifo")
    os.symlink("w.data", tmp_path / "link")
    (tmp_path / "short").write_bytes(b"1")
    refused("must be in a file beside the model", location="../w.data")
    refused("must be in a file beside the model", location=str(tmp_path / "w.data"))
    refused("must be in a plain file", location="link")
    refused("fifo", OSError, location="fifo")
    refused("none", FileNotFoundError, location="none")
    refused("'short' has 1 in all", location="short")
    refused("'w.data' has .* in all", offset=str(2**62))
    refused("must have a number as the offset", offset="-1")
    refused("must hold .* bytes, got the length 3", length="3")
    # Many tensors of one stretch of bytes: a small file must not become a large network.
    (tmp_path / "shared").write_bytes((tmp_path / "w.data").read_bytes()[:1024])
    refused("'shared' has 1024 in all", location="shared", offset="0")


def test_long_and_deep_graphs_take_no_time_and_no_stack():
    lines = ["v0 = MatMul(x, W)", *(f"v{n} = Add(v{n - 1}, b)" for n in range(1, 3000)), "y = Relu(v2999)"]
    assert len(rc.onnx.load(model_of("\n".join(lines))).layers) == 1
    lines = ["v0 = Gemm(x, W)", *(f"v{n} = Gemm(v{n - 1}, W, x)" for n in range(1, 1500)), "y = Identity(v1499)"]
    assert len(rc.onnx.load(model_of("\n".join(lines))).layers) == 1500
    lines = ["v0 = Relu(x)", *(f"v{n} = Add(v{n - 1}, x)" for n in range(1, 3000)), "y = Identity(v2999)"]
    with pytest.raises(rc.ConversionError, match=r"node 'n1' .Relu. takes the input"):
        rc.onnx.load(model_of("\n".join(lines)))


def test_without_onnx_the_command_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"onnx.load needs .*pip install 'resnetcore\[onnx\]'"):
        rc.onnx.load(path)

"""A stack's float32 products by what PyTorch allows its own to be made of: `torch.set_float32_matmul_precision`."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import resnetcore as rc
from reference import distance
from resnetcore import _core

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualStack, shared, stack_operators  # noqa: E402
from test_torch_stack import inputs, there_and_back, twin_of  # noqa: E402
from torch_network import as_float64  # noqa: E402

pytestmark = pytest.mark.torch
# Of outputs, and of gradients: docs/math.md, "Accuracy".
BOUNDS = {"high": (2e-5, 1e-4), "medium": (1e-2, 3e-2)}


@pytest.fixture(autouse=True)
def before():
    products = getattr(torch.backends.mkldnn, "matmul", None)
    kept = getattr(products, "fp32_precision", None)
    yield
    torch.set_float32_matmul_precision("highest")
    if kept is not None:
        products.fp32_precision = kept


@pytest.fixture
def everywhere(monkeypatch):
    """The kernels of "high" are slow where there are no tiles, and so not taken; here they are."""
    monkeypatch.setattr(_core, "available_precision", lambda asked: asked)


def module_of(training=True):
    """Every kind of layer, whose widths fill panels and do not."""
    kinds = [
        rc.Layer(40, activation="tanh"),
        rc.Layer(40, activation="silu", norm="batch", skips={2: "learned"}),
        rc.Layer(33, activation="gelu", skips={2: "learned"}),
        rc.Layer(33, activation="tanh", norm="batch", pre=True, skips={2: np.linspace(-1, 1, 40 * 33).reshape(40, 33)}),
        rc.Layer(33, activation="softplus", gate=True),
        rc.Layer(3, activation=None, skips={3: "learned"}),
    ]
    return ResidualStack(6, kinds, seed=0).train(training)


def passed(module, x):
    return there_and_back(copy.deepcopy(module), x)


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("precision", list(BOUNDS))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [8, 61, 700])
def test_within_the_bounds_of_what_was_asked_for(rows, training, precision, request):
    if precision == "high":
        request.getfixturevalue("high_kernels")
    module, x = module_of(training), inputs(rows)
    exact = twin_of(module, "float64")
    exact.training = training
    truth, plain = there_and_back(exact, x.double()), passed(module, x)
    torch.set_float32_matmul_precision(precision)
    got = passed(module, x)
    of_outputs, of_gradients = BOUNDS[precision]
    for name, value in got.items():
        assert distance(value, truth[name]) < (of_outputs if name == "output" else of_gradients), name
    assert not np.array_equal(got["output"], plain["output"])


def test_highest_is_float32_and_other_dtypes_take_no_notice():
    module, x = module_of(), inputs(300)
    plain = passed(module, x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = passed(module, x)
    wide = passed(copy.deepcopy(module).double(), x.double())
    torch.set_float32_matmul_precision("high")
    with torch.autocast("cpu", torch.bfloat16):
        assert same(mixed, passed(module, x))
    assert same(wide, passed(copy.deepcopy(module).double(), x.double()))
    torch.set_float32_matmul_precision("highest")
    assert same(plain, passed(module, x))


def test_a_cpu_that_gains_nothing_by_it_keeps_float32(monkeypatch):
    monkeypatch.setattr(_core, "available_precision", lambda asked: "highest")
    module, x = module_of(), inputs(300)
    plain = passed(module, x)
    torch.set_float32_matmul_precision("high")
    assert same(plain, passed(module, x))


@pytest.mark.usefixtures("everywhere", "high_kernels")
def test_the_setting_of_this_kind_of_product_alone():
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(products, "fp32_precision"):
        pytest.skip("this PyTorch has one setting for all products")
    module, x = module_of(), inputs(300)
    plain = passed(module, x)
    torch.set_float32_matmul_precision("high")
    high = passed(module, x)
    products.fp32_precision = "ieee"
    assert same(plain, passed(module, x))
    products.fp32_precision = "tf32"
    assert same(high, passed(module, x))


def test_a_pytorch_with_one_setting_for_all(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", None, raising=False)
    for precision in ("high", "medium", "highest"):
        torch.set_float32_matmul_precision(precision)
        assert shared.matmul_precision() == precision


@pytest.mark.usefixtures("everywhere", "high_kernels")
@pytest.mark.parametrize("shift", range(0, 256, 64))
def test_what_forward_leaves_may_lie_and_come_back_on_any_boundary(shift):
    """The halves of a number are found by its address."""
    torch.set_float32_matmul_precision("high")
    module, x = module_of(), inputs(130)
    plain = passed(module, x)

    def unpack(tensor):
        if tensor.dtype != torch.uint8:
            return tensor
        memory = torch.empty(len(tensor) + 512, dtype=torch.uint8)
        start = -memory.data_ptr() % 256 + shift
        return memory[start : start + len(tensor)].copy_(tensor)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        assert same(plain, passed(module, x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("forced", [False, True])
def test_compiled_without_a_break_and_traced_again_for_another_setting(forced, request):
    if forced:
        request.getfixturevalue("high_kernels")
        request.getfixturevalue("everywhere")
    torch.compiler.reset()
    module, x = module_of(training=False), inputs(12)
    compiled = torch.compile(module, fullgraph=True)
    seen = []
    for precision in ("highest", "high", "highest"):
        torch.set_float32_matmul_precision(precision)
        eager, traced = passed(module, x), compiled(x)
        assert np.array_equal(as_float64(traced), eager["output"])
        seen.append(traced)
    assert torch.equal(seen[0], seen[2])
    if forced:
        assert not torch.equal(seen[0], seen[1])


@pytest.mark.usefixtures("everywhere", "high_kernels")
@pytest.mark.parametrize("strict", [True, False])
def test_what_was_exported_keeps_its_setting(strict):
    module, x = module_of(training=False), inputs(12)
    torch.set_float32_matmul_precision("high")
    expected = module(x)
    program = torch.export.export(module, (x,), strict=strict).module()
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(program(x), expected) and not torch.equal(module(x), expected)


def test_a_program_of_high_is_refused_by_a_cpu_without_its_kernels():
    without = [
        isa["name"]
        for isa in _core.isa_info()["known"]
        if isa["compiled"] and isa["supported"] and isa["name"] not in ("avx512_bf16", "avx512_amx")
    ]
    if not without:
        pytest.skip("there is no other instruction set")
    program = """import resnetcore as rc
from resnetcore import _core
try:
    _core.Vjp(1, [rc.Layer(1).to_dict()], "bfloat16x2", True, False)
except rc.BuildFeatureError as error:
    assert 'matmul precision "high" has no kernels on cpu; trace or export it again' in str(error), error
else:
    raise SystemExit("it was taken")"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "RESNETCORE_ISA": without[0]}, check=True)


def test_a_program_of_before_there_were_flat_stacks():
    """It predicts; a tape of that layout is refused."""
    module, x = module_of(training=False), inputs(5)
    description = json.loads(stack_operators.describe(6, module.topology, "float32"))
    assert description.pop("flat") is False
    description["tape"] = 3
    given = x, module._values(), torch.zeros((), dtype=torch.int64), json.dumps(description), False, False
    with torch.no_grad():
        out, *_ = torch.ops.resnetcore.residual_stack_forward(*given, False)
        assert torch.equal(out, module(x))
        with pytest.raises(rc.BuildFeatureError, match=r"layout 3, here \d+\); export it again with this version"):
            torch.ops.resnetcore.residual_stack_forward(*given, True)


@pytest.mark.usefixtures("everywhere", "high_kernels")
def test_a_training_follows_that_by_float32():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 300))
    losses = {}
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        module = module_of()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        losses[precision] = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(inputs(300)), labels)
            loss.backward()
            optimizer.step()
            losses[precision].append(loss.item())
    assert losses["highest"][-1] < 0.8 * losses["highest"][0]
    assert distance(np.array(losses["high"]), np.array(losses["highest"])) < 1e-4

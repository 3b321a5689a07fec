"""Kernels inside PyTorch run on PyTorch's threads: the same bits, whoever calls, however many there are, and in a child."""

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import resnetcore as rc
from resnetcore import _core
from resnetcore.config import config

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualStack, residual, stack_operators  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="this PyTorch has no OpenMP"),
]
# Weight gradients by layer and by tile, a norm's phases, and the block alone.
CASES = {"by layer": (40, None), "by tile": (513, None), "with norms": (300, "batch"), "block": (600, None)}
RUN = """
import hashlib, sys, threading, torch
import resnetcore as rc
from resnetcore import _core
from resnetcore.torch import ResidualStack

def tasks():
    import os
    return len(os.listdir("/proc/self/task"))

def digest():
    module = ResidualStack(64, [rc.Layer(64, skips={2: "identity"} if i else {}) for i in range(6)], seed=0)
    x = torch.randn(513, 64, generator=torch.Generator().manual_seed(0))
    out = module(x)
    out.square().sum().backward()
    arrays = [out.detach()] + [p.grad for p in module.parameters()]
    return hashlib.sha256(b"".join(a.contiguous().numpy().tobytes() for a in arrays)).hexdigest()
"""


def stack_and_input(rows, norm, seed=0, dtype=torch.float32):
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()
    layers = [rc.Layer(64, norm=norm, skips={2: "identity"} if number else {}) for number in range(6)]
    return ResidualStack(64, layers, seed=seed).to(dtype), x


def results(rows, norm, seed=0, dtype=torch.float32):
    """Outputs and all gradients of one pass."""
    module, x = stack_and_input(rows, norm, seed, dtype)
    out = module(x)
    out.square().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in module.parameters())]


def block(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(n, 300, generator=generator, requires_grad=True) for n in (rows, 300))
    out = residual([x], [w], identity=[x])
    out.square().sum().backward()
    return [out.detach(), x.grad, w.grad]


def of_case(name, seed=0):
    rows, norm = CASES[name]
    return block(rows, seed) if name == "block" else results(rows, norm, seed)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def pytorch_with(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def four_threads():
    before = rc.get_num_threads()
    rc.set_num_threads(4)
    with pytorch_with(4):
        yield
    rc.set_num_threads(before)


def python(code, **variables):
    run = subprocess.run(
        [sys.executable, "-c", RUN + code],
        env={**os.environ, "RESNETCORE_NUM_THREADS": "4", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_openmp_of_pytorch_is_found_and_shown():
    assert "omp" in os.path.basename(_core.host_openmp())
    assert config()["threads inside PyTorch"] == _core.host_openmp()
    assert not _core.adopt_openmp_of("libno_such_library.so")


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_on_pytorchs_threads_as_on_ours(name, four_threads, monkeypatch):
    on_theirs = of_case(name)
    for module in (stack_operators, sys.modules["resnetcore.torch.block"]):
        monkeypatch.setattr(module, "PyTorchsThreads", contextlib.nullcontext)
    assert same(of_case(name), on_theirs)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_whatever_number_pytorch_has_between_calls(name, four_threads):
    first = of_case(name)
    for count in (1, 3, 2, 4):
        with pytorch_with(count):
            assert same(of_case(name), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_forward_and_backward_may_have_other_threads_and_another_strategy(dtype, four_threads):
    expected = results(*CASES["by tile"], dtype=dtype)
    before = _core.get_strategy()
    for forward, backward, count in (("auto", "by_layer", 1), ("auto", "by_tile", 3), ("by_tile", "by_layer", 1)):
        module, x = stack_and_input(*CASES["by tile"], dtype=dtype)
        try:
            _core.set_strategy(before if forward == "auto" else forward)
            loss = (out := module(x)).square().sum()
            _core.set_strategy(backward)
            with pytorch_with(count):
                loss.backward()
        finally:
            _core.set_strategy(before)
        assert same([out.detach(), x.grad, *(p.grad for p in module.parameters())], expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_tapes_layers_may_have_other_widths_and_what_only_forward_reads(dtype, training, four_threads):
    """Tiles go through such layers at different times, so that none may lie where another layer's rows did."""
    widths = [64, 32, 48, 24, 40]
    kinds = [{"branch_dropout": 0.3}, {"branch_dropout": 0.3}, {}, {"pre": True, "activation": "gelu"}, {"pre": True}]
    if not training:
        kinds[3]["norm"] = kinds[2]["norm"] = "batch"  # in training it would part the tiles
    layers = [rc.Layer(width, **kind) for width, kind in zip(widths, kinds, strict=True)]
    module = ResidualStack(64, [*layers, rc.Layer(5, activation=None)], seed=1).to(dtype).train(training)

    def of(strategy, forward, backward):
        x = torch.randn(517, 64, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
        module.zero_grad()
        torch.manual_seed(4)
        _core.set_strategy(strategy)
        with pytorch_with(forward):
            loss = (out := module(x)).square().sum()
        with pytorch_with(backward):
            loss.backward()
        return [out.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]

    before = _core.get_strategy()
    try:
        expected = of("by_layer", 1, 1)
        for forward, backward in ((1, 1), (2, 3), (4, 1)):
            assert same(of("by_tile", forward, backward), expected)
    finally:
        _core.set_strategy(before)


def test_no_thread_of_ours_is_started():
    code = "torch.set_num_threads(4); a = torch.randn(700, 700); a @ a; (a + a).sum(); before = tasks(); digest()\n"
    before, after, own = python(code + "print(before, tasks()); rc.ops.residual_forward([a], [a]); print(tasks())")
    assert before == after
    assert int(own) > int(after)  # a call of our own has threads of our own


def test_fewer_threads_than_were_asked_for():
    code = "torch.set_num_threads(4); print(digest())"
    whole = python(code)
    assert python(code, OMP_THREAD_LIMIT="2") == whole
    assert python(code, OMP_THREAD_LIMIT="1") == whole
    assert python(code, OMP_DYNAMIC="true") == whole


def test_several_python_threads(four_threads):
    work = [(name, seed) for name in CASES for seed in range(3)]
    expected = [of_case(*one) for one in work]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda one: of_case(*one), work), expected, strict=True):
            assert same(got, wanted)


def test_backward_in_another_thread_than_forward(four_threads):
    x = torch.randn(513, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layers = [rc.Layer(64, skips={2: "identity"} if number else {}) for number in range(6)]
    module = ResidualStack(64, layers, seed=0)
    out = module(x)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(out.square().sum().backward).result()
    assert same([out.detach(), x.grad, *(p.grad for p in module.parameters())], results(*CASES["by tile"]))


def test_a_forked_child_has_threads_of_its_own():
    code = """
import os
torch.set_num_threads(4)
here = digest()
child = os.fork()
if child == 0:
    import signal
    signal.alarm(60)
    torch.set_num_threads(1)  # PyTorch's own operations wait for ever otherwise, as its loaders' workers know
    _core.use_host_threads(4)
    from resnetcore.torch import stack_operators
    import contextlib
    stack_operators.PyTorchsThreads = contextlib.nullcontext
    os._exit(0 if digest() == here and _core.host_openmp() == "" and tasks() > 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(code) == ["0"]

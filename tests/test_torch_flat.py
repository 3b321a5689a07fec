"""A stack whose parameters are one, `flat`: the same as one of many, to PyTorch's optimizers, tracers and state dicts."""

import copy
import pickle

import numpy as np
import pytest

import resnetcore as rc

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualStack, stack_operators  # noqa: E402
from test_torch_stack import inputs, layers, relu_layers  # noqa: E402

pytestmark = pytest.mark.torch
F = torch.nn.functional
OPS = torch.ops.resnetcore


def both(kinds=None, **settings):
    """The same numbers as many parameters and as one."""
    many = ResidualStack(6, layers() if kinds is None else kinds, seed=0, **settings)
    return many, ResidualStack(6, many.topology, seed=0, flat=True, **settings)


def assert_same_state(a, b):
    a, b = (side if isinstance(side, dict) else side.state_dict() for side in (a, b))
    assert set(a) == set(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def gradients_of(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    out.square().mean().backward()
    return out, x.grad


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_the_same_bits(training, dtype):
    many, one = both(dtype=getattr(torch, dtype))
    assert [name for name, _ in one.named_parameters()] == ["flat"]
    assert [name for name, _ in one.named_buffers()] == [name for name, _ in many.named_buffers()]
    assert_same_state(many, one)
    x = inputs(40, dtype=getattr(torch, dtype))
    for a, b in zip(gradients_of(many.train(training), x), gradients_of(one.train(training), x), strict=True):
        assert torch.equal(a, b)
    together = torch.cat([p.grad.flatten() for p in dict(many._by_name()).values() if p.requires_grad])
    assert torch.equal(one.flat.grad, together)
    assert_same_state(many, one)  # running statistics moved alike


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_takes_them_alike(make, precision):
    many, one = both(relu_layers("batch"))
    x, labels = inputs(64), torch.from_numpy(np.random.default_rng(0).integers(0, 4, 64))
    torch.set_float32_matmul_precision(precision)
    try:
        for module in (many, one):
            optimizer = make(module.parameters(), lr=0.01)
            for _ in range(20):
                optimizer.zero_grad()
                F.cross_entropy(module(x), labels).backward()
                optimizer.step()
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, value in many.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_gradcheck_and_opcheck(monkeypatch):
    module = ResidualStack(6, layers(), seed=0, flat=True, dtype=torch.float64)
    x = inputs(7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, _: module(x), (x, module.flat))
    module = ResidualStack(6, layers(), seed=0, flat=True)
    x, values = inputs(7), [v.detach().clone() for v in module._values()]
    settings = (stack_operators.describe(6, layers(), "float32", True), True, True)
    seed = torch.zeros((), dtype=torch.int64)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        given = [v.requires_grad_(i == 0) for i, v in enumerate(values)]
        torch.library.opcheck(OPS.residual_stack_forward, (x, given, seed, *settings, True))
    finally:
        torch.use_deterministic_algorithms(False)
    values = [v.detach() for v in values]
    out, tape, *_ = OPS.residual_stack_forward(x, values, seed, *settings, True)
    torch.library.opcheck(OPS.residual_stack_backward, (torch.ones_like(out), x, values, seed, tape, *settings))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_without_a_break():
    torch.compiler.reset()
    many, one = both()
    x = inputs(12)
    compiled = torch.compile(one, fullgraph=True)
    compiled(x).square().sum().backward()
    many(x).square().sum().backward()
    together = torch.cat([p.grad.flatten() for p in many._by_name().values() if p.requires_grad])
    torch.testing.assert_close(one.flat.grad, together)


def test_each_loads_the_others_state():
    many, one = both()
    other = ResidualStack(6, layers(), seed=1, flat=True)
    inside = torch.nn.Sequential(torch.nn.Identity(), other)
    inside.load_state_dict({f"1.{name}": v for name, v in many.state_dict().items()})
    assert_same_state(many, other)
    plain = ResidualStack(6, layers(), seed=2)
    plain.load_state_dict(one.state_dict())
    assert_same_state(plain, one)
    # What a state dict holds is the parameter's own memory, as PyTorch's is.
    assert other.state_dict()["layers.0.weight"].data_ptr() == other.flat.data_ptr()
    assert other.state_dict(keep_vars=True)["layers.0.weight"].requires_grad


def test_a_state_is_assigned_to_a_module_without_memory():
    many, _ = both(dtype=torch.float64)
    with torch.device("meta"):
        module = ResidualStack(6, layers(), flat=True)
    module.load_state_dict(many.state_dict(), assign=True)
    assert module.flat.dtype == torch.float64 and isinstance(module.flat, torch.nn.Parameter)
    assert_same_state(many, module)


def test_a_state_that_does_not_fit_is_named():
    many, one = ResidualStack(6, layers(), seed=1), ResidualStack(6, layers(), seed=0, flat=True)
    before, state = one.flat.detach().clone(), many.state_dict()
    state["layers.2.skip_3_weight"] = torch.zeros(2, 2)
    with pytest.raises(RuntimeError, match=r"size mismatch for layers\.2\.skip_3_weight: .*\[2, 2\].*\[5, 6\]"):
        one.load_state_dict(state)
    state["layers.2.skip_3_weight"] = "text"
    with pytest.raises(RuntimeError, match=r"layers\.2\.skip_3_weight must be a tensor, got str"):
        one.load_state_dict(state)
    assert torch.equal(one.flat, before)  # nothing of it was taken
    del state["layers.2.skip_3_weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.2\.skip_3_weight"):
        one.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*layers\.0\.nothing"):
        one.load_state_dict({**many.state_dict(), "layers.0.nothing": torch.zeros(1)})
    kept = one.state_dict()["layers.2.skip_3_weight"].clone()
    lacking = one.load_state_dict(state, strict=False)
    assert lacking.missing_keys == ["layers.2.skip_3_weight"] and not lacking.unexpected_keys
    assert_same_state(many.state_dict() | {"layers.2.skip_3_weight": kept}, one.state_dict())


def test_flat_itself_may_be_given():
    one, other = (ResidualStack(6, layers(), seed=seed, flat=True) for seed in (0, 1))
    lacking = other.load_state_dict({"flat": one.flat.detach()}, strict=False)
    assert torch.equal(one.flat, other.flat)
    assert set(lacking.missing_keys) == {name for name, _ in one.named_buffers()} and not lacking.unexpected_keys
    with pytest.raises(RuntimeError, match=r"Unexpected key.*layers\.0\.weight"):
        other.load_state_dict({**one.state_dict(), "flat": one.flat.detach()})
    x = inputs(9)
    zeros = {name: torch.zeros_like(p) for name, p in one.named_parameters()}
    assert (torch.func.functional_call(one.eval(), zeros, x) == torch.func.functional_call(one, zeros, x[:1])).all()


def test_a_module_without_memory_is_not_filled():
    many, _ = both(relu_layers(None))
    with torch.device("meta"):
        module = ResidualStack(6, many.topology, flat=True)
    with pytest.warns(UserWarning, match="for flat: copying from a non-meta parameter"):
        module.load_state_dict(many.state_dict())
    state = many.state_dict()
    del state["layers.0.bias"]
    with pytest.raises(RuntimeError, match="flat would be on cpu and meta: load all of its parts"):
        module.load_state_dict(state, strict=False, assign=True)


class Halved(torch.nn.Module):
    def forward(self, flat):
        return flat / 2


def test_a_parameter_that_is_made_of_another():
    _, one = both(relu_layers(None))
    x, halved = inputs(9), one.flat.detach() / 2
    torch.nn.utils.parametrize.register_parametrization(one, "flat", Halved())
    again = ResidualStack(6, one.topology, flat=True)
    with torch.no_grad():
        again.flat.copy_(halved)
    assert torch.equal(one(x), again(x))
    assert np.array_equal(one.to_network()(x.numpy()), again.to_network()(x.numpy()))
    state = one.state_dict()
    assert list(state) == ["parametrizations.flat.original"]
    one.load_state_dict(state)


def test_copies_networks_and_files():
    many, one = both()
    for module in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert_same_state(many, module)
        assert torch.equal(module(inputs(3)[:2]), one(inputs(3)[:2]))
    net = one.to_network()
    expected = many.to_network().parameters()
    assert all(np.array_equal(value, expected[name]) for name, value in net.parameters().items())
    assert_same_state(one, ResidualStack.from_network(net, flat=True))


def test_autocast_and_wider_parameters():
    many, one = both()
    x = inputs(30)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(many(x), one(x))
    assert torch.equal(many.double()(x.double()), one.double()(x.double()))
    with pytest.raises(rc.DTypeError, match="x must be float32"):
        one(x)


def test_the_core_refuses_what_does_not_fit():
    run = stack_operators._compiled(stack_operators.describe(6, layers(), "float32", True), True, False)
    values = [torch.zeros(shape) for _, shape, _ in run.parameters]
    x, tape, out = inputs(4), torch.empty(run.tape_bytes(4), dtype=torch.uint8), torch.empty(4, run.outputs)
    running = [v for (name, _, _), v in zip(run.parameters, values, strict=True) if ".running_" in name]
    with pytest.raises(rc.ShapeError, match="there must be 6 values, got 5"):
        run.forward(x, values[1:], 0, tape, out, running)
    with pytest.raises(rc.ShapeError, match="flat must be a dense array of shape"):
        run.forward(x, [values[0][:-1], *values[1:]], 0, tape, out, running)
    run.forward(x, values, 0, tape, out, running)
    with pytest.raises(rc.ShapeError, match="there must be one gradient"):
        run.backward(x, values, 0, tape, torch.zeros_like(out), None, [])
    with pytest.raises(rc.ShapeError, match="flat must be a dense array of shape"):
        run.backward(x, values, 0, tape, torch.zeros_like(out), None, [values[0][:-1]])


def test_flat_is_true_or_false():
    with pytest.raises(rc.DTypeError, match="flat must be True or False, got 1"):
        ResidualStack(6, [rc.Layer(3)], flat=1)

"""`resnetcore.torch.residual`: gradients, operators, tracing, autocast and arguments, against PyTorch's own operations."""

import numpy as np
import pytest

import resnetcore as rc

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import residual  # noqa: E402
from torch_network import ACTIVATIONS, activation  # noqa: E402

pytestmark = pytest.mark.torch
OP = torch.ops.resnetcore.residual_forward


def arguments(dtype=torch.float64, rows=5, widths=(3, 4), columns=6, n_identity=2, seed=0, grad=True):
    make = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_(grad)

    return (
        [random(rows, k) for k in widths],
        [random(k, columns) for k in widths],
        random(columns),
        [random(rows, columns) for _ in range(n_identity)],
    )


def flat(sources, weights, bias, identity):
    return [*sources, *weights, *([] if bias is None else [bias]), *identity]


def theirs(sources, weights, bias, identity, name):
    z = sum(a @ w for a, w in zip(sources, weights, strict=True)) + sum(identity)
    return activation(name)(z if bias is None else z + bias)


def relative(a, b):
    a, b = a.detach(), b.detach()
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-300))


@pytest.mark.parametrize("name", rc.activations())
def test_gradcheck(name):
    sources, weights, bias, identity = arguments()

    def block(*tensors):
        return residual(tensors[:2], tensors[2:4], tensors[4], tensors[5:], name)

    def operator(*tensors):
        return OP(tensors[:2], tensors[2:4], tensors[4], tensors[5:], name)

    for function in (block, operator):
        assert torch.autograd.gradcheck(function, flat(sources, weights, bias, identity))


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize(("has_bias", "n_identity"), [(True, 2), (False, 0), (True, 1)])
def test_opcheck(name, has_bias, n_identity):
    sources, weights, bias, identity = arguments(torch.float32, n_identity=n_identity)
    bias = bias if has_bias else None
    torch.library.opcheck(OP, (sources, weights, bias, identity, name))
    a = OP(sources, weights, bias, identity, name).detach()
    # The gradient itself has no derivative: test_double_backward_says_what_to_do.
    sources, weights, _, identity = arguments(torch.float32, n_identity=n_identity, grad=False)
    given = (torch.ones_like(a), a, sources, weights, None if bias is None else bias.detach(), identity, name)
    torch.library.opcheck(torch.ops.resnetcore.residual_backward, given)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_without_a_break_forward_and_backward():
    torch.compiler.reset()

    def program(sources, weights, bias, identity):
        return residual([s * 2 for s in sources], weights, bias, identity, "silu").sin().sum()

    compiled = torch.compile(program, fullgraph=True)
    for rows in (5, 9, 17):
        one, other = arguments(torch.float32, rows), arguments(torch.float32, rows)
        loss, expected = compiled(*one), program(*other)
        loss.backward(), expected.backward()
        torch.testing.assert_close(loss, expected)
        for a, b in zip(flat(*one), flat(*other), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_gradients_are_those_of_pytorch_in_float64(name, rows, dtype, bound):
    ours = arguments(dtype, rows, (40, 17), 33)
    truth = [t.detach().double().requires_grad_() for t in flat(*ours)]
    a, b = residual(*ours, name), theirs(truth[:2], truth[2:4], truth[4], truth[5:], name)
    assert a.dtype == dtype and a.shape == (rows, 33)
    assert relative(a, b) < bound
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    if dtype == torch.bfloat16 and name in ("relu", "leaky_relu", "elu"):
        direction = direction * (b.abs() > 0.1)  # where rounding may not take the other branch
    a.backward(direction), b.backward(direction.double())
    for x, y in zip(flat(*ours), truth, strict=True):
        assert x.grad.dtype == dtype
        assert relative(x.grad, y.grad) < 10 * bound


def test_a_batch_of_no_rows():
    ours = arguments(rows=0)
    a = residual(*ours)
    assert a.shape == (0, 6)
    a.sum().backward()
    for t in flat(*ours):
        assert t.grad.shape == t.shape and not t.grad.any()


def test_nothing_is_copied(monkeypatch):
    from resnetcore import _core

    seen = []
    kernel = _core.residual_forward_f32

    def look(sources, weights, bias, identity, name, out, device):
        seen.extend(a.ctypes.data for a in [*sources, *weights, bias, *identity])
        seen.append(out.ctypes.data)
        return kernel(sources, weights, bias, identity, name, out, device)

    monkeypatch.setattr(_core, "residual_forward_f32", look)
    sources, weights, bias, identity = arguments(torch.float32)
    result = residual(sources, weights, bias, identity)
    assert seen == [t.data_ptr() for t in [*sources, *weights, bias, *identity, result]]


def test_strided_and_unaligned_arguments():
    dense = arguments(torch.float32, 6, (8,), 8, 1)
    odd = torch.empty(6 * 8 * 4 + 1, dtype=torch.uint8)
    views = [
        dense[0][0].detach().t().contiguous().t(),  # columns contiguous
        dense[1][0].detach().repeat_interleave(2, 1)[:, ::2],
        dense[2].detach().repeat_interleave(3)[::3],
        odd[1:].view(torch.uint8),
    ]
    np.frombuffer(odd.numpy(), np.uint8)[1:] = np.frombuffer(dense[3][0].detach().numpy().tobytes(), np.uint8)
    unaligned = torch.from_numpy(np.ndarray((6, 8), np.float32, odd.numpy(), 1))
    views[3] = unaligned
    assert unaligned.data_ptr() % 4 == 1
    leaves = [v.requires_grad_() for v in views]
    a, b = residual([leaves[0]], [leaves[1]], leaves[2], [leaves[3]]), residual(*dense)
    assert torch.equal(a, b)
    a.square().sum().backward(), b.square().sum().backward()
    for x, y in zip(leaves, flat(*dense), strict=True):
        assert torch.equal(x.grad, y.grad)


def test_autocast():
    ours = arguments(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        a = residual(*ours)
        assert residual(*arguments(torch.float64)).dtype == torch.float64
    assert a.dtype == torch.bfloat16
    a.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in flat(*ours))
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert residual(*ours).dtype == torch.float32


@pytest.mark.parametrize("operator", [False, True])
def test_double_backward_says_what_to_do(operator):
    sources, weights, bias, identity = arguments()
    call = OP if operator else residual
    a = call(sources, weights, bias, identity, "tanh")
    (grad,) = torch.autograd.grad(a.sum(), [bias], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.sum().backward()


def test_only_what_is_asked_for_gets_a_gradient():
    sources, weights, bias, identity = arguments(grad=False)
    assert not residual(sources, weights, bias, identity).requires_grad
    weights[0].requires_grad_()
    residual(sources, weights, bias, identity).sum().backward()
    assert weights[0].grad is not None and weights[1].grad is None


def test_function_transforms_go_through():
    sources, weights, bias, _ = arguments()
    weights, bias = [w.detach() for w in weights], bias.detach()
    sources = [s.detach() for s in sources]
    gradient = torch.func.grad(lambda w: residual(sources, [w, weights[1]], bias).square().sum())(weights[0])
    leaf = weights[0].clone().requires_grad_()
    theirs(sources, [leaf, weights[1]], bias, [], "relu").square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)


def test_tracers_see_the_operator():
    from torch.fx.experimental.proxy_tensor import make_fx

    (source, _), (weight, _), bias, _ = arguments(grad=False)
    traced = make_fx(lambda a: residual([a], [weight], bias))(source)
    assert "resnetcore.residual_forward" in traced.code
    torch.testing.assert_close(traced(source + 1), residual([source + 1], [weight], bias))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_transforms_without_a_rule_say_so():
    sources, weights, _, _ = arguments(grad=False)
    with pytest.raises(NotImplementedError, match="vmap has no rule"):
        torch.func.vmap(lambda a: residual([a], weights[:1]))(sources[0][None])
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jvp(lambda a: residual([a], weights[:1]), (sources[0],), (sources[0],))
    x = sources[0].clone().requires_grad_()
    out = residual([x], weights[:1])
    with pytest.raises(NotImplementedError, match="one after another"):
        torch.autograd.grad(out, x, out.detach()[None], is_grads_batched=True)


def test_as_many_threads_as_pytorch_has(monkeypatch):
    from resnetcore import _core

    limits = []
    kernel = _core.residual_forward_f32

    def look(*given):
        limits.append(_core.use_host_threads(0))
        _core.use_host_threads(limits[-1])
        return kernel(*given)

    monkeypatch.setattr(_core, "residual_forward_f32", look)
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            residual(*arguments(torch.float32))
    finally:
        torch.set_num_threads(before)
    assert limits == [1, 2]
    assert _core.use_host_threads(0) == 0  # and nothing is left of it


def test_meta_tensors_have_shapes_only():
    given = [[t.to("meta") for t in one] if isinstance(one, list) else one.to("meta") for one in arguments()]
    assert residual(*given).shape == (5, 6)


SOURCES, WEIGHTS, BIAS, IDENTITY = arguments(torch.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sources": []}, rc.ShapeError, "at least one source"),
        ({"weights": WEIGHTS[:1]}, rc.ShapeError, "2 sources and 1 weights"),
        ({"sources": SOURCES[0]}, rc.DTypeError, "sources must be a list or tuple"),
        ({"sources": [np.zeros((5, 3)), SOURCES[1]]}, rc.DTypeError, "sources must be a list or tuple of tensors"),
        ({"bias": np.zeros(6)}, rc.DTypeError, "bias must be a tensor or None"),
        ({"bias": BIAS.double()}, rc.DTypeError, "bias must be float32"),
        ({"bias": BIAS[:5]}, rc.ShapeError, r"bias must be \(6,\)"),
        ({"weights": [WEIGHTS[0].t(), WEIGHTS[1]]}, rc.ShapeError, r"sources\[0\]|weights"),
        ({"identity": [IDENTITY[0][:, :5]]}, rc.ShapeError, r"identity\[0\] must be \(5, 6\)"),
        ({"activation": "swish"}, ValueError, "unknown activation 'swish'; known are"),
        ({"sources": [SOURCES[0].half(), SOURCES[1]]}, rc.DTypeError, "float32, float64 or bfloat16, got float16"),
    ],
)
def test_bad_arguments(change, error, message):
    given = {"sources": SOURCES, "weights": WEIGHTS, "bias": BIAS, "identity": IDENTITY, "activation": "relu"}
    with pytest.raises(error, match=message):
        residual(**{**given, **change})

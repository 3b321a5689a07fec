"""`ResidualStack(x, y)`: a loss with its gradients in one pass, against PyTorch's of the outputs and against `rc.Network`."""

import copy

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualStack, stack_operators  # noqa: E402
from resnetcore.torch.losses import mean_loss  # noqa: E402
from test_torch_stack import inputs, layers, relu_layers, twin_of  # noqa: E402

pytestmark = pytest.mark.torch
F = torch.nn.functional
LOSSES = {
    "labels": "cross_entropy",
    "smoothed": rc.Loss("cross_entropy", label_smoothing=0.1, class_weight=[1, 2, 0.5]),
    "probabilities": rc.Loss("cross_entropy", class_weight={1: 3.0}),
    "binary": rc.Loss("binary_cross_entropy", class_weight=[1, 4]),
    "mse": "mse",
    "mae": "mae",
    "huber": rc.Loss("huber", delta=0.3),
}


def targets(kind, rows, dtype=torch.float32, outputs=3):
    generator = torch.Generator().manual_seed(1)
    if kind in ("labels", "smoothed"):
        return torch.randint(0, outputs, (rows,), generator=generator)
    y = torch.rand(rows, outputs, generator=generator, dtype=torch.float64).to(dtype)
    return y / y.sum(1, keepdim=True) if kind == "probabilities" else y


def weights(rows, dtype=torch.float32):
    return torch.rand(rows, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def of(module):
    return {name: p.grad for name, p in module.named_parameters()} | dict(module.named_buffers())


def assert_close(a, b, **bounds):
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], **bounds, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture
def passes(monkeypatch):
    """How many passes of the core had the loss in them."""
    calls, run = [], _core.Vjp.loss
    monkeypatch.setattr(_core.Vjp, "loss", lambda *args: calls.append(args) or run(*args))
    return calls


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_of_the_outputs_and_its_gradients(kind, weighted, flat, dtype, passes):
    dtype = getattr(torch, dtype)
    one = ResidualStack(6, layers(), seed=0, dtype=dtype, flat=flat)
    other = copy.deepcopy(one)
    x, y = inputs(40, dtype=dtype).requires_grad_(), targets(kind, 40, dtype)
    z, weight = x.detach().clone().requires_grad_(), weights(40, dtype) if weighted else None
    loss = one(x, y, LOSSES[kind], weight)
    loss.backward()
    expected = mean_loss("", LOSSES[kind], other(z), y, weight)
    expected.backward()
    assert len(passes) == 1 and loss.shape == () and loss.dtype == dtype
    bounds = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(loss, expected, **bounds)
    torch.testing.assert_close(x.grad, z.grad, **bounds)
    assert_close(of(one), of(other), **bounds)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_pytorchs_loss_of_outputs_is_our_definition(kind, weighted):
    """Of what the other tests compare with: `rc.Network`'s loss and gradient, in float64."""
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64)
    net = module.to_network()
    x, y = inputs(30, dtype=torch.float64).requires_grad_(), targets(kind, 30, torch.float64)
    weight = weights(30, torch.float64) if weighted else None
    loss = mean_loss("", LOSSES[kind], module(x), y, weight)
    loss.backward()
    given = None if weight is None else weight.numpy()
    expected, _, d_x = net.gradients(x.detach().numpy(), y.numpy(), LOSSES[kind], sample_weight=given)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), d_x, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("strategy", ["by_layer", "by_tile"])
@pytest.mark.parametrize(("width", "rows"), [(20, 2), (20, 129), (20, 700), (390, 2), (390, 40), (1290, 40)])
@pytest.mark.parametrize("precision", ["float32", "high", "bfloat16"])
def test_the_bits_of_a_networks_gradients(precision, width, rows, strategy, request):
    """The same kernels, on parameters laid out anew: those of wide layers, and their gradients, in parts, past the caches."""
    if precision == "high":
        request.getfixturevalue("high_kernels")
        torch.set_float32_matmul_precision("high")
    try:
        _core.set_strategy(strategy)
        deep = [rc.Layer(width, skips={2: "learned"}) for _ in range(4 if width < 100 else 1)]
        kinds = [rc.Layer(width), *deep, rc.Layer(3, activation=None)]
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        module = ResidualStack(6, kinds, seed=3, dtype=dtype)  # another seed than that of a program's own numbers
        net = module.to_network()
        if precision == "high":
            net = net.astype("float32", "high")
        x, y = inputs(rows, dtype=dtype), targets("labels", rows)
        loss = module(x, y)
        loss.backward()
        expected, gradients, _ = net.gradients(x.float().numpy(), y.numpy())
    finally:
        _core.set_strategy("auto")
        torch.set_float32_matmul_precision("highest")
    assert loss.item() == np.float32(expected)
    for name, p in module._by_name().items():
        assert torch.equal(p.grad, torch.from_numpy(gradients[name].T).to(dtype)), name
    if precision == "float32":  # and of the outputs
        for p, of_outputs in zip(
            module.parameters(),
            torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(p.grad, of_outputs, rtol=1e-4, atol=1e-6)


def test_gradcheck():
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64)
    x, y = inputs(7, dtype=torch.float64).requires_grad_(), targets("labels", 7)
    assert torch.autograd.gradcheck(lambda x, *_: module(x, y), (x, *module.parameters()))


def test_a_hundred_steps_are_those_of_pytorchs_operations():
    module = ResidualStack(6, relu_layers("batch"), seed=0, flat=True)
    twin = twin_of(module, "float64")
    x, y = inputs(64), targets("labels", 64, outputs=4)
    optimizers = [torch.optim.SGD(side, lr=0.05) for side in (module.parameters(), twin.parameters.values())]
    for _ in range(100):
        losses = module(x, y), F.cross_entropy(twin(x.double()), y)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=2e-3)
    assert losses[0].item() < 0.5


def test_a_scaled_loss_and_a_second_time(passes):
    module, x, y = ResidualStack(6, layers(), seed=0), inputs(20), targets("labels", 20)
    once = torch.autograd.grad(module(x, y), list(module.parameters()))
    loss = 3 * module(x, y)
    before = [b.clone() for b in module.buffers()]
    loss.backward(retain_graph=True)
    thrice = [p.grad.clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad.zero_()  # nobody else's memory
    loss.backward(retain_graph=True)
    assert len(passes) == 3
    for p, a, b in zip(module.parameters(), once, thrice, strict=True):
        assert torch.equal(p.grad, b)
        torch.testing.assert_close(b, 3 * a)
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))
    loss.backward()
    assert all(torch.equal(p.grad, b + b) for p, b in zip(module.parameters(), thrice, strict=True))


def test_parameters_may_change_before_backward_but_not_before_a_second_one():
    module, x, y = ResidualStack(6, layers(), seed=0), inputs(20), targets("labels", 20)
    expected = torch.autograd.grad(module(x, y), list(module.parameters()))
    loss = module(x, y)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(2)
    got = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["plain", "weighted", "weight", "column", "evaluated", "evaluated mse"])
def test_targets_that_change_before_they_are_read_again_are_noticed(kind):
    outputs = 1 if kind == "column" else 3
    module = ResidualStack(6, [rc.Layer(5), rc.Layer(outputs, activation=None)], seed=0).train("evaluated" not in kind)
    x, y, loss, weight = inputs(20), targets("labels", 20), "cross_entropy", None
    if kind in ("column", "evaluated mse"):
        y, loss = (weights(20), "mse") if kind == "column" else (targets("mse", 20), "mse")
    if kind in ("weighted", "weight"):
        weight = weights(20)
    result = module(x, y, loss, weight)
    if module.training:
        result.backward(retain_graph=True)
    changed = weight if kind == "weight" else y
    changed.copy_(changed.flip(0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


def test_no_second_derivative():
    module, x, y = ResidualStack(6, layers(), seed=0), inputs(20).requires_grad_(), targets("labels", 20)
    (grad,) = torch.autograd.grad(module(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


def test_only_what_is_asked_for(passes):
    module, y = ResidualStack(6, layers(), seed=0), targets("labels", 20)
    module.requires_grad_(False)
    module.layers[0].weight.requires_grad_(True)
    module(inputs(20), y).backward()
    assert [name for name, p in module.named_parameters() if p.grad is not None] == ["layers.0.weight"]
    module.requires_grad_(False)
    x = inputs(20).requires_grad_()
    module(x, y).backward()
    assert x.grad.abs().sum() > 0 and len(passes) == 2
    loss = module(inputs(20), y)
    assert not loss.requires_grad and len(passes) == 2


def test_without_gradients_and_in_evaluation_it_is_the_loss_of_the_outputs(passes):
    module, x, y = ResidualStack(6, layers(), seed=0), inputs(20), targets("labels", 20)
    for training in (True, False):
        module.train(training)
        with torch.no_grad():
            got, expected = copy.deepcopy(module)(x, y), F.cross_entropy(copy.deepcopy(module)(x), y)
        torch.testing.assert_close(got, expected)
    module(x, y).backward()
    other = copy.deepcopy(module)
    other.zero_grad()
    F.cross_entropy(other(x), y).backward()
    assert not passes
    assert_close(of(module), of(other))


def test_dropout_is_that_of_the_outputs(passes):
    kinds = [
        rc.Layer(12, dropout=0.5),
        rc.Layer(12, branch_dropout=0.25, skips={2: "learned"}),
        rc.Layer(3, activation=None),
    ]
    module, x, y = ResidualStack(6, kinds, seed=0), inputs(50), targets("labels", 50)
    torch.manual_seed(5)
    a = torch.autograd.grad(module(x, y), list(module.parameters()))
    torch.manual_seed(5)
    b = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))
    assert len(passes) == 1
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-7)


def test_what_is_no_number_comes_back_as_none():
    module, x, y = ResidualStack(6, relu_layers(None), seed=0), inputs(20).requires_grad_(), targets("labels", 20)
    with torch.no_grad():
        x[3, 2] = float("inf")
    loss = module(x, y)
    assert not loss.isfinite()
    loss.backward()
    assert x.grad.isnan().all() and all(p.grad.isnan().all() for p in module.parameters())
    x = inputs(20)
    loss = module(x, y)
    expected = F.cross_entropy(module(x), y)
    torch.testing.assert_close(loss, expected)


def test_autocast(passes):
    module, x, y = ResidualStack(6, layers(), seed=0, flat=True), inputs(40), targets("labels", 40)
    other = copy.deepcopy(module)
    with torch.autocast("cpu", torch.bfloat16):
        loss, expected = module(x, y), F.cross_entropy(other(x).float(), y)
    assert loss.dtype == torch.float32 and len(passes) == 1
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=1e-2)
    assert (module.flat.grad - other.flat.grad).norm() < 0.02 * other.flat.grad.norm()


def test_parameters_in_bfloat16(passes):
    module = ResidualStack(6, layers(), seed=0, dtype=torch.bfloat16)
    loss = module(
        inputs(40, dtype=torch.bfloat16), targets("mse", 40, torch.bfloat16), "mse", weights(40, torch.bfloat16)
    )
    loss.backward()
    assert loss.dtype == torch.float32 and len(passes) == 1
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in module.parameters())


def unaligned(labels):
    memory = bytearray(8 * len(labels) + 1)
    memory[1:] = labels.numpy().tobytes()
    return torch.frombuffer(memory, dtype=torch.int64, offset=1, count=len(labels))


@pytest.mark.parametrize("kind", ["int32", "uint8", "strided", "unaligned", "float64", "column", "negative"])
def test_targets_of_other_kinds(kind, passes):
    outputs = 1 if kind == "column" else 3
    module = ResidualStack(6, [rc.Layer(5), rc.Layer(outputs, activation=None)], seed=0)
    x, labels, values = inputs(20), targets("labels", 20), targets("mse", 20)
    y, plain, loss = {
        "int32": (labels.int(), labels, "cross_entropy"),
        "uint8": (labels.byte(), labels, "cross_entropy"),
        "strided": (torch.stack([labels, labels], 1)[:, 0], labels, "cross_entropy"),
        "unaligned": (unaligned(labels), labels, "cross_entropy"),
        "float64": (values.double(), values, "mse"),
        "column": (values[:, 0].clone(), values[:, :1].clone(), "mse"),
        "negative": (torch.view_as_complex(torch.stack([values, -values], 2)).conj().imag, values, "mse"),
    }[kind]
    assert kind != "negative" or y.is_neg()
    assert module(x, y, loss).item() == module(x, plain, loss).item()
    assert len(passes) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("training", [True, False])
def test_forward_derivatives_by_targets_and_weights(training, passes):
    module = ResidualStack(6, relu_layers(None), seed=0, dtype=torch.float64).requires_grad_(False).train(training)
    x, y, w = inputs(20, dtype=torch.float64), targets("mse", 20, torch.float64, 4), weights(20, torch.float64)
    out, along = module(x), torch.ones_like(w)
    with torch.autograd.forward_ad.dual_level():
        for dual_y, dual_w in [
            (torch.autograd.forward_ad.make_dual(y, y), w),
            (y, torch.autograd.forward_ad.make_dual(w, along)),
        ]:
            got = torch.autograd.forward_ad.unpack_dual(module(x, dual_y, "mse", dual_w)).tangent
            each = (out - dual_y).square().mean(1) * dual_w
            expected = torch.autograd.forward_ad.unpack_dual(each.sum() / dual_w.sum()).tangent
            torch.testing.assert_close(got, expected)
    assert not passes


@pytest.mark.parametrize("size", [3e38, 1e-44])
def test_weights_at_the_ends_of_their_range(size):
    module, x, y = ResidualStack(6, relu_layers(None), seed=0), inputs(20), targets("labels", 20)
    weight, expected = torch.full((20,), size), module(x, y)
    torch.testing.assert_close(module(x, y, sample_weight=weight), expected)
    torch.testing.assert_close(module.eval()(x, y, sample_weight=weight), expected)


def test_differentiable_targets_get_their_gradient(passes):
    module, x = ResidualStack(6, layers(), seed=0), inputs(20)
    y, w = targets("probabilities", 20).requires_grad_(), weights(20).requires_grad_()
    module(x, y, sample_weight=w).backward()
    assert not passes and y.grad.abs().sum() > 0 and w.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("kind", LOSSES)
def test_compiled_without_a_break(kind):
    torch.compiler.reset()
    module = ResidualStack(6, layers(), seed=0, flat=True)
    other, x, y, weight = copy.deepcopy(module), inputs(12), targets(kind, 12), weights(12)
    torch.compile(module, fullgraph=True)(x, y, LOSSES[kind], weight).backward()
    other(x, y, LOSSES[kind], weight).backward()
    assert_close(of(module), of(other))


def test_transforms_of_functions(passes):
    module, x, y = ResidualStack(6, relu_layers(None), seed=0), inputs(9), targets("labels", 9)
    values = {name: p.detach() for name, p in module.named_parameters()}
    got = torch.func.grad(lambda p: torch.func.functional_call(module, p, (x, y)))(values)
    assert not passes
    module(x, y).backward()
    assert_close(got, {name: p.grad for name, p in module.named_parameters()})
    with pytest.raises(NotImplementedError, match=r"torch\.func\.vmap has no rule"):
        torch.func.vmap(lambda x: module(x, y))(x[None])
    with pytest.raises(NotImplementedError, match="ask for them one after another"):
        torch.autograd.grad(module(x, y), module.layers[0].weight, torch.ones(2), is_grads_batched=True)


def test_no_rows_and_one():
    module = ResidualStack(6, relu_layers(None), seed=0)
    loss = module(inputs(0), targets("labels", 0))
    loss.backward()
    assert loss.item() == 0 and not any(p.grad.any() for p in module.parameters())
    torch.testing.assert_close(
        module(inputs(1), targets("labels", 1)), F.cross_entropy(module(inputs(1)), targets("labels", 1))
    )
    with pytest.raises(ValueError, match="at least 2 rows"):
        ResidualStack(6, relu_layers("batch"))(inputs(1), targets("labels", 1))


REFUSED = {
    "a label too high": (torch.tensor([0, 1, 3]), {}, ValueError, r"y must hold labels from 0 to 2, got 3 in row 2"),
    "a label below": (torch.tensor([0, -100, 1]), {}, ValueError, r"y must hold labels from 0 to 2, got -100 in row 1"),
    "too few": (torch.tensor([0, 1]), {}, rc.ShapeError, "one target for each of the 3 rows"),
    "floats": (torch.zeros(3), {}, rc.DTypeError, "y must hold integer labels"),
    "too wide": (torch.zeros(3, 4), {"loss": "mse"}, rc.ShapeError, r"y must have shape \(3, 3\)"),
    "one column": (torch.zeros(3, 1), {"loss": "mse"}, rc.ShapeError, "never broadcast"),
    "no probability": (torch.full((3, 3), 1.5), {}, ValueError, r"probabilities in \[0, 1\]"),
    "no tensor": ([0, 1, 2], {}, rc.DTypeError, "y must be a tensor, got list"),
    "no loss": (torch.tensor([0, 1, 2]), {"loss": "hinge"}, ValueError, "unknown loss 'hinge'"),
    "no name": (torch.zeros(3, 3), {"loss": ["mse"]}, rc.DTypeError, "loss must be a name or a Loss"),
    "class weights": (
        torch.tensor([0, 1, 2]),
        {"loss": rc.Loss(class_weight=[1, 2])},
        rc.ShapeError,
        r"class_weight must have shape \(3,\)",
    ),
    "weights": (torch.tensor([0, 1, 2]), {"sample_weight": torch.tensor([1.0, -1, 1])}, ValueError, "not negative"),
    "weights' shape": (torch.tensor([0, 1, 2]), {"sample_weight": torch.ones(2)}, rc.ShapeError, r"shape \(3,\)"),
    "sparse": (
        torch.zeros(3, 3).to_sparse(),
        {"loss": "mse"},
        rc.DTypeError,
        "y must be a dense tensor of real numbers",
    ),
    "complex": (
        torch.zeros(3, 3) * 1j,
        {"loss": "mse"},
        rc.DTypeError,
        "dense tensor of real numbers, got one of torch.complex64",
    ),
    "elsewhere": (torch.zeros(3, 3, device="meta"), {"loss": "mse"}, rc.DeviceError, "y must be on cpu as x is"),
    "weights elsewhere": (
        torch.tensor([0, 1, 2]),
        {"sample_weight": torch.ones(3, device="meta")},
        rc.DeviceError,
        "sample_weight must be on cpu as x is",
    ),
    "no targets": (
        None,
        {"sample_weight": torch.ones(3)},
        ValueError,
        "loss and sample_weight are of targets; give y, too",
    ),
    "no targets of a loss": (None, {"loss": "mse"}, ValueError, "give y, too"),
    "weights' type": (torch.tensor([0, 1, 2]), {"sample_weight": 2.0}, rc.DTypeError, "must be a tensor, got float"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("training", [True, False])
def test_what_does_not_fit_is_said(what, training):
    y, settings, error, text = REFUSED[what]
    module = ResidualStack(6, layers(), seed=0).train(training)
    before = [v.clone() for v in module._values()]
    with pytest.raises(error, match=text):
        module(inputs(3), y, **settings)
    assert all(torch.equal(a, b) for a, b in zip(before, module._values(), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_shapes_are_looked_at_where_numbers_are_not():
    with pytest.raises(
        rc.ShapeError, match=r"y must have shape \(3, 3\) \(targets are never broadcast\), got \(3, 1\)"
    ):
        mean_loss("f", "mse", torch.zeros(3, 3), torch.zeros(3, 1))
    with pytest.raises(rc.ShapeError, match="cross_entropy needs two outputs or more"):
        mean_loss("f", "cross_entropy", torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(rc.ShapeError, match=r"sample_weight must have shape \(3,\)"):
        mean_loss("f", "mse", torch.zeros(3, 3), torch.zeros(3, 3), torch.ones(4))
    module = torch.compile(ResidualStack(6, layers(), seed=0), fullgraph=True)
    with pytest.raises(Exception, match=r"y must have shape"):
        module(inputs(3), torch.zeros(3, 1), "mse")


def test_the_core_refuses_what_does_not_fit():
    described = stack_operators.describe(6, layers(), "float32", True)
    run = stack_operators._compiled(described, True, True)
    values = [torch.zeros(shape) for _, shape, _ in run.parameters]
    running = [v for (name, _, _), v in zip(run.parameters, values, strict=True) if ".running_" in name]
    loss = rc.Loss().to_core(3, np.dtype("float32"))
    good = {
        "x": inputs(4),
        "values": values,
        "seed": 0,
        "loss": loss,
        "y": targets("labels", 4),
        "sample_weight": None,
        "out": torch.zeros(()),
        "d_x": torch.zeros(4, 6),
        "gradients": [values[0].clone()],
        "carried": running,
    }
    run.loss(**good)
    for name, bad, text in [
        ("y", torch.zeros(4), "y must be a dense array of shape"),
        ("y", targets("labels", 5), "y must be a dense array of shape"),
        ("y", torch.zeros(4, 2), "y must be a dense array of shape"),
        ("sample_weight", torch.zeros(3), "sample_weight must be a dense array of shape"),
        ("out", torch.zeros(1), "out must be a dense array of shape"),
        ("out", torch.zeros((), dtype=torch.float64), "out must be a dense array of shape"),
        ("d_x", None, "d_x must be a dense array of shape"),
        ("d_x", torch.zeros(3, 6), "d_x must be a dense array of shape"),
        ("gradients", [], "there must be one gradient"),
        ("gradients", [values[0][:-1]], "flat must be a dense array of shape"),
        ("carried", [], "too few running statistics"),
        ("carried", [*running, running[0]], "too many running statistics"),
        ("x", inputs(1), "at least 2 rows"),
    ]:
        with pytest.raises(rc.ShapeError, match=text):
            run.loss(**{**good, name: bad})
    evaluation = stack_operators._compiled(described, False, True)
    with pytest.raises(ValueError, match="of a training pass on the CPU"):
        evaluation.loss(**good)

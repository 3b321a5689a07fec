"""`resnetcore.torch.ResidualStack` and `ResidualLayer`: against PyTorch's own operations, tracers, state and arguments."""

import copy
import gc
import io
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import resnetcore as rc
from comparison import BOUND, assert_within

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualLayer, ResidualStack, residual, stack_operators  # noqa: E402
from torch_network import TorchNetwork, as_float64  # noqa: E402

pytestmark = pytest.mark.torch
F = torch.nn.functional
OPS = torch.ops.resnetcore


def layers(norm=True):
    """Every kind of layer, smooth enough for differences."""
    batch = "batch" if norm else None
    return [
        rc.Layer(6, activation="tanh"),
        rc.Layer(6, activation="silu", norm=batch, skips={2: "identity"}),
        rc.Layer(5, activation="gelu", skips={2: "learned", 3: "learned"}),
        rc.Layer(5, activation="tanh", norm=batch, pre=True, skips={2: np.linspace(-1, 1, 30).reshape(6, 5)}),
        rc.Layer(5, activation="softplus", gate=True),
        rc.Layer(3, activation=None, skips={5: "learned"}),
    ]


def relu_layers(norm, depth=8, width=16):
    return [
        rc.Layer(width, norm=norm, skips={2: "identity"} if number % 2 and number > 2 else {})
        for number in range(1, depth)
    ] + [rc.Layer(4, activation=None)]


def twin_of(module, dtype):
    """The same numbers in PyTorch's own operations."""
    net = module.to_network()
    return TorchNetwork(net._core.layers, {**net.parameters(), **net.buffers()}, list(net.parameters()), dtype)


def inputs(rows, width=6, dtype=torch.float32, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(a, b):
    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training):
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64).train(training)
    x = inputs(7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("input_gradient", [True, False])
def test_opcheck(training, input_gradient, monkeypatch):
    module = ResidualStack(6, layers(), seed=0)
    x = inputs(7).requires_grad_(input_gradient)
    values = [v.detach().clone().requires_grad_(v.requires_grad) for v in module._values()]
    settings = (stack_operators.describe(6, layers(), "float32"), training, input_gradient)
    seed = torch.zeros((), dtype=torch.int64)
    # A tape is filled where it is needed: between its numbers there is padding, which PyTorch then fills as it is made.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        torch.library.opcheck(OPS.residual_stack_forward, (x, values, seed, *settings, True))
        x, values = x.detach(), [v.detach() for v in values]
        torch.library.opcheck(OPS.residual_stack_forward, (x, values, seed, *settings, False))
    finally:
        torch.use_deterministic_algorithms(False)
    out, tape, *_ = OPS.residual_stack_forward(x, values, seed, *settings, True)
    torch.library.opcheck(OPS.residual_stack_backward, (torch.ones_like(out), x, values, seed, tape, *settings))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("training", [True, False])
def test_compiled_without_a_break_forward_and_backward(training):
    torch.compiler.reset()
    module = ResidualStack(6, layers(), seed=0).train(training)
    other = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True)
    for rows in (7, 12):
        x = inputs(rows).requires_grad_()
        y = x.detach().clone().requires_grad_()
        compiled(x).square().sum().backward()
        other(y).square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def trained(side):
    """Parameters by the network's names."""
    if isinstance(side, TorchNetwork):
        return side.parameters
    return {n: v for n, v in zip(side._named, side._values(), strict=True) if v.requires_grad}


def running(side):
    """Running statistics by the network's names."""
    values = side.buffers if isinstance(side, TorchNetwork) else dict(zip(side._named, side._values(), strict=True))
    return {name: v for name, v in values.items() if ".running_" in name}


def in_out(side, tensors):
    """As `rc.Network` has them: matrices (in, out)."""
    ours = not isinstance(side, TorchNetwork)
    return {name: t.T if ours and t.ndim == 2 else t for name, t in tensors.items()}


def gradients(side):
    """By the network's names, (in, out)."""
    return in_out(side, {name: p.grad for name, p in trained(side).items()})


def there_and_back(side, x):
    """Outputs, gradients and running statistics of one pass."""
    x = x.clone().requires_grad_()
    out = side(x)
    out.square().mean().backward()
    found = {"output": out, "input": x.grad, **gradients(side), **running(side)}
    return {name: as_float64(t) for name, t in found.items()}


def errors(got, exact):
    return {name: float(np.linalg.norm(got[name] - exact[name])) for name in exact}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [2, 130, 700])
def test_outputs_gradients_and_statistics_are_pytorchs(rows, training, dtype):
    module = ResidualStack(6, layers(), seed=1, dtype=getattr(torch, dtype)).train(training)
    exact, twin = (twin_of(copy.deepcopy(module), name) for name in ("float64", "float32"))
    exact.training = twin.training = training
    x = inputs(rows, dtype=torch.float32)
    truth = there_and_back(exact, x.double())
    got = there_and_back(module, x.to(module.layers[0].weight.dtype))
    assert_within(
        got, truth, BOUND[dtype], lambda: errors(there_and_back(twin, x), truth) if dtype == "float32" else {}
    )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("norm", [None, "batch"])
def test_a_hundred_steps_of_pytorchs_optimizer(norm):
    module = ResidualStack(6, relu_layers(norm), seed=0)
    sides = [module, twin_of(copy.deepcopy(module), "float64"), twin_of(copy.deepcopy(module), "float32")]
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, 64))
    ends = []
    for side in sides:
        optimizer = torch.optim.SGD(trained(side).values(), lr=0.02, momentum=0.9)
        losses = []
        for step in range(100):
            x = inputs(64, dtype=getattr(side, "dtype", torch.float32), seed=step % 5)
            loss = F.cross_entropy(side(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found = in_out(side, {**trained(side), **running(side)})
        ends.append({"losses": np.array(losses), **{name: as_float64(t) for name, t in found.items()}})
    ours, truth, theirs = ends
    assert truth["losses"][-1] < 0.8 * truth["losses"][0]
    assert_within(ours, truth, BOUND["float32"], lambda: errors(theirs, truth))


def test_one_forward_may_be_differentiated_twice_and_out_of_order():
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64)
    first, second = module(inputs(9, dtype=torch.float64)).sum(), module(inputs(4, dtype=torch.float64, seed=1)).sum()
    parameters = list(module.parameters())
    one = torch.autograd.grad(first, parameters, retain_graph=True)
    torch.autograd.grad(second, parameters)
    again = torch.autograd.grad(first, parameters)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


def test_what_forward_leaves_is_saved_as_pytorch_saves_tensors():
    """Hooks see it, checkpointing leaves it out, and it is freed with the graph while the loss lives on."""
    module, alive = ResidualStack(6, layers(), seed=0), []

    def pack(tensor):
        if tensor.dtype == torch.uint8:
            alive.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = module(inputs(9)).sum()
    assert [ref() is not None for ref in alive] == [True]
    loss.backward()
    assert alive[0]() is None


def test_a_hook_may_bring_back_what_was_saved_elsewhere():
    def unpack(tensor):
        if tensor.dtype != torch.uint8:
            return tensor
        return torch.cat([torch.zeros(8, dtype=torch.uint8), tensor])[8:]

    module = ResidualStack(6, layers(False), seed=0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        loss = module(inputs(5)).sum()
    loss.backward()
    got = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(inputs(5)).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(got, module.parameters(), strict=True))


def test_pytorchs_default_device():
    module, x = ResidualStack(6, layers(), seed=0), inputs(5)
    with torch.device("meta"):
        assert ResidualStack(6, layers()).layers[0].weight.device.type == "meta"
        module(x).sum().backward()  # as an operation of PyTorch, where its arguments are
    assert module.layers[0].weight.grad.device.type == "cpu"


@pytest.mark.parametrize("preserve_rng_state", [True, False])
def test_checkpointing(preserve_rng_state):
    stack = [rc.Layer(6, norm="batch", activation="tanh"), rc.Layer(6, dropout=0.5, activation="tanh"), rc.Layer(3)]
    module, x, seeds = ResidualStack(6, stack, seed=0, dtype=torch.float64), inputs(9, dtype=torch.float64), []
    draw = module._seed
    module._seed = lambda device: seeds.append(draw(device)) or seeds[-1]
    torch.utils.checkpoint.checkpoint(
        module, x, use_reentrant=False, preserve_rng_state=preserve_rng_state
    ).sum().backward()
    got = [p.grad.clone() for p in module.parameters()]
    assert len(seeds) == 2
    module.zero_grad()
    module._seed = lambda device: seeds[1]  # the masks of the second pass, which is the one that is differentiated
    module(x).sum().backward()
    for a, b in zip(got, module.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


@pytest.mark.parametrize("training", [True, False])
def test_export_with_any_batch_size(training):
    module = ResidualStack(6, layers(), seed=0).train(training)
    other, x = copy.deepcopy(module), inputs(5)
    rows = torch.export.Dim("rows", min=2)
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (inputs(8),), dynamic_shapes=({0: rows},)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    torch.testing.assert_close(program(x), other(x))
    running = dict(program.named_buffers())
    for name, buffer in other.named_buffers():
        torch.testing.assert_close(running[name], buffer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::torch.jit.TracerWarning")
def test_tracers_see_the_operator():
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x, other = ResidualStack(6, layers(False), seed=0), inputs(5), inputs(5, seed=1)
    for traced in (make_fx(module)(other), torch.jit.trace(module, other, check_trace=False)):
        assert "residual_stack_forward" in str(traced.graph)
        torch.testing.assert_close(traced(x), module(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_function_transforms():
    module, x = ResidualStack(6, layers(False), seed=0), inputs(5)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(module, parameters, (x,)).square().sum()

    module(x).square().sum().backward()
    for name, gradient in torch.func.grad(loss)(parameters, x).items():
        torch.testing.assert_close(gradient, module.get_parameter(name).grad)
    with pytest.raises(NotImplementedError, match="vmap has no rule"):
        torch.func.vmap(loss, (None, 0))(parameters, x[:, None])
    with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives \(jvp\); use reverse mode"):
        torch.func.jvp(module, (x,), (x,))
    out = module(x)
    with pytest.raises(NotImplementedError, match="one after another"):
        torch.autograd.grad(out, module.layers[0].weight, out.detach()[None], is_grads_batched=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["export", "make_fx", "jit.trace"])
def test_a_traced_program_has_a_gradient_of_an_x_that_is_given_one_later(kind):
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x = ResidualStack(6, layers(False), seed=0), inputs(5)
    program = {
        "export": lambda: torch.export.export(module, (inputs(5, seed=1),)).module(),
        "make_fx": lambda: make_fx(module)(inputs(5, seed=1)),
        "jit.trace": lambda: torch.jit.trace(module, inputs(5, seed=1), check_trace=False),
    }[kind]()
    results = []
    for run in (program, module):
        at = x.clone().requires_grad_()
        run(at).square().sum().backward()
        results.append(at.grad)
    torch.testing.assert_close(*results)
    assert results[1].any()


def test_grad_and_value_by_the_input():
    module, x = ResidualStack(6, layers(False), seed=0), inputs(5)
    gradient, value = torch.func.grad_and_value(lambda x: module(x).square().sum())(x)
    at = x.clone().requires_grad_()
    loss = module(at).square().sum()
    loss.backward()
    torch.testing.assert_close((gradient, value), (at.grad, loss))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_program_traced_without_gradients_keeps_no_tape_and_says_so():
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x = ResidualStack(6, layers(), seed=0).eval(), inputs(700)
    with torch.no_grad():
        program = make_fx(module)(x)
        assert not any(t.dtype == torch.uint8 and t.numel() for t in results_of(program, x))
        torch.testing.assert_close(program(x), module(x))
    loss = program(x.requires_grad_()).sum()
    with pytest.raises(RuntimeError, match=r"traced where gradients were off.*with torch\.enable_grad\(\)"):
        loss.backward()


def results_of(program, x):
    """Every tensor that a graph of torch.fx makes on the way."""
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            seen.extend(t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor))
            return result

    Watch(program).run(x)
    return seen


def test_a_tape_of_another_version_is_refused(monkeypatch):
    module, x = ResidualStack(6, layers(False), seed=0), inputs(5)
    program = torch.export.export(module, (x,)).module()
    stack_operators._check_layout.cache_clear()
    monkeypatch.setattr(stack_operators._core, "tape_layout", lambda: -1)
    with pytest.raises(rc.BuildFeatureError, match=r"layout \d+, here -1\); export it again with this version"):
        program(x)


def test_dropout_follows_pytorchs_generator():
    module = ResidualStack(6, [rc.Layer(32, dropout=0.5), rc.Layer(32, branch_dropout=0.3), rc.Layer(3)], seed=0)
    x = inputs(20)
    torch.manual_seed(5)
    a, b = module(x), module(x)
    torch.manual_seed(5)
    assert torch.equal(module(x), a) and not torch.equal(a, b)
    module.eval()
    assert torch.equal(module(x), module(x))


def test_bfloat16_and_autocast():
    module = ResidualStack(6, relu_layers("batch"), seed=0)
    x = inputs(200)
    plain = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(x)
    assert mixed.dtype == torch.bfloat16 and 0 < relative(mixed, plain) < 3e-2
    mixed.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in module.parameters())
    narrow = ResidualStack(6, relu_layers(None), seed=0, dtype=torch.bfloat16)
    out = narrow(x.bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 for p in narrow.parameters())


def test_double_backward_says_what_to_do():
    module = ResidualStack(6, layers(False), seed=0)
    parameters = list(module.parameters())
    grads = torch.autograd.grad(module(inputs(5)).sum(), parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grads[0].sum().backward()


def test_no_copy_of_parameters_inputs_and_gradients(monkeypatch):
    seen = set()
    shown = stack_operators.Core.shown

    def look(core, tensors):
        seen.update(t.data_ptr() for t in tensors)
        return shown(core, tensors)

    monkeypatch.setattr(stack_operators.Core, "shown", look)
    module, x = ResidualStack(6, layers(False), seed=0), inputs(5).requires_grad_()
    module(x).sum().backward()
    given = [x, *module.parameters()]
    assert all(p.data_ptr() in seen and p.grad.data_ptr() in seen for p in given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_older_pytorch_shows_its_tensors_as_arrays(dtype, monkeypatch):
    results = []
    for _ in range(2):
        module, x = ResidualStack(6, layers(), seed=0, dtype=dtype), inputs(7, dtype=dtype).requires_grad_()
        module(x).sum().backward()
        results.append([x.grad, *(p.grad for p in module.parameters()), *module.buffers()])
        monkeypatch.setattr(stack_operators, "_IS_LOOKED_AT", False)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize(
    "change",
    [lambda t: t[:, :5], lambda t: t.double(), lambda t: t.t().contiguous().t(), lambda t: t[0], lambda t: t[None]],
    ids=["narrower", "of another dtype", "strided", "a row", "deeper"],
)
def test_the_core_refuses_what_does_not_fit(change, looked_at):
    run = stack_operators.program(stack_operators.describe(6, layers(False), "float32"), True, False)
    values = [torch.zeros(shape) for _, shape, _ in run.parameters]
    x, tape, out = inputs(7), torch.empty(run.tape_bytes(7), dtype=torch.uint8), torch.empty(7, 3)
    look = (lambda t: t) if looked_at else torch.Tensor.numpy
    run.forward(look(x), values, 0, tape, look(out), [])
    with pytest.raises(rc.ShapeError, match="x must be a dense array of shape"):
        run.forward(look(change(x)), values, 0, tape, out, [])
    with pytest.raises(rc.ShapeError, match="out must be a dense array of shape"):
        run.forward(x, values, 0, tape, look(change(torch.empty(7, 6))), [])
    with pytest.raises(rc.ShapeError, match=r"1\.weight must be a dense array of shape \(6, 6\)"):
        run.forward(x, [look(change(torch.zeros(6, 6))), *values[1:]], 0, tape, out, [])
    for bad, message in ((values[:-1], "there must be"), ([*values[:-1], object()], "must be a dense array")):
        with pytest.raises(rc.ShapeError, match=message):
            run.forward(x, bad, 0, tape, out, [])
    with pytest.raises(rc.ShapeError, match="tape"):
        run.forward(x, values, 0, tape[:-1], out, [])
    with pytest.raises(rc.ShapeError, match="too few gradients"):
        run.backward(x, values, 0, tape, out, None, [])


def test_strided_inputs_and_gradients():
    module = ResidualStack(6, layers(False), seed=0)
    x = inputs(10)
    assert torch.equal(module(x.t().contiguous().t()), module(x))
    assert torch.equal(module(x.repeat_interleave(2, 0)[::2]), module(x))
    assert torch.equal(module(torch._neg_view(x)), module(-x))
    module(x).sum().backward()  # an expanded gradient, whose strides are 0


def spread(t):
    """The same numbers, with others between them."""
    return torch.stack([t, t + 1], -1)[..., 0]


def misaligned(t):
    """The same numbers, a byte beyond where elements may begin."""
    return torch.frombuffer(bytearray(1) + t.numpy().tobytes(), dtype=t.dtype, offset=1).view(t.shape)


LAID_OTHERWISE = {
    "transposed": lambda t: t.t().contiguous().t(),
    "spread": spread,
    "negated": lambda t: torch._neg_view(-t),
    "misaligned": misaligned,
}


@pytest.mark.parametrize("which", ["all", "one"])
@pytest.mark.parametrize("laid", LAID_OTHERWISE)
def test_parameters_that_do_not_lie_as_the_kernels_read_them(laid, which):
    module, x = ResidualStack(6, layers(), seed=0), inputs(9)
    other = copy.deepcopy(module)
    for name, parameter in [*other.named_parameters()][slice(None) if which == "all" else slice(4, 5)]:
        owner, attribute = other.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(owner, attribute, torch.nn.Parameter(LAID_OTHERWISE[laid](parameter.detach())))
    outputs = [module(x), other(x)]
    assert torch.equal(*outputs)
    for out in outputs:
        out.square().sum().backward()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), other.buffers(), strict=True))


def test_the_core_says_which_tensors_it_reads_as_they_lie():
    plain = [
        torch.zeros(3, 4),
        torch.zeros(5, dtype=torch.float64),
        torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(0, 3),
    ]
    assert stack_operators._core.are_dense(plain) == stack_operators._IS_LOOKED_AT
    others = [spread(plain[0]), plain[0].t(), misaligned(plain[0]), plain[0].to("meta"), plain[0].to_sparse()]
    for other in [*others, plain[0].numpy(), None]:
        assert not stack_operators._core.are_dense([*plain, other])


def test_what_a_function_transform_has_left_behind():
    module, x, kept = ResidualStack(6, layers(False), seed=0), inputs(5), []

    def loss(x):
        kept.append(x)
        return module(x).sum()

    gradient = torch.func.grad(loss)(x)
    at = x.clone().requires_grad_()
    module(at).sum().backward()
    assert torch.equal(gradient, at.grad)
    assert torch.equal(module(kept[0]), module(x))
    assert torch.equal(residual([kept[0]], [torch.eye(6)]), x.relu())


@pytest.mark.parametrize("gradients", [True, False])
def test_a_transforms_function_that_is_called_after_it(gradients):
    module = ResidualStack(6, [rc.Layer(5), rc.Layer(6, activation=None)], seed=3)
    w = module.layers[0].weight.detach().t().repeat(1, 2)[:, :6].contiguous()
    x = torch.randn(9, 6, requires_grad=True)
    for function in (module, lambda x: residual([x], [w])):
        expected = torch.autograd.grad(function(x).sum(), x)[0]
        _, backward = torch.func.vjp(function, x.detach())
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(backward(torch.ones(9, 6))[0], expected)


@pytest.mark.parametrize("which", ["x", "a parameter"])
def test_a_tensor_whose_memory_was_freed(which):
    module, x = ResidualStack(6, [rc.Layer(3)], seed=3), torch.randn(9, 6)
    weight = module.layers[0].weight
    weight.data = weight.data.clone()
    (x if which == "x" else weight.data).untyped_storage().resize_(0)
    with pytest.raises((rc.ShapeError, RuntimeError)):
        module(x)


def test_a_tensor_that_is_elsewhere_is_named():
    module, weight = ResidualStack(6, layers(False), seed=0), torch.zeros(6, 4, device="meta")
    module.layers[2].to("meta")
    with pytest.raises(rc.DeviceError, match=r"a parameter must be on cpu as x is, got a tensor on meta"):
        module(inputs(5))
    with pytest.raises(rc.DeviceError, match=r"must be on cpu as sources\[0\] is, got a tensor on meta"):
        residual([inputs(5)], [weight])
    assert module.to("meta")(inputs(5).to("meta")).shape == (5, 3)


@pytest.mark.parametrize("rows", [0, 1])
def test_small_batches(rows):
    module = ResidualStack(6, layers(False), seed=0)
    out = module(inputs(rows))
    assert out.shape == (rows, 3)
    out.sum().backward()
    assert all(p.grad.shape == p.shape and p.grad.any() == (rows > 0) for p in module.parameters() if p.ndim == 1)


def test_state_and_copies_keep_everything():
    module = ResidualStack(6, layers(), seed=0)
    module(inputs(9))
    assert module.state_dict()["layers.0.weight"].shape == (6, 6)
    assert module.state_dict()["layers.2.skip_3_weight"].shape == (5, 6)
    assert module.layers[1].norm_running_mean.any()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = ResidualStack(6, layers(), seed=1)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    x = inputs(4)
    for other in (loaded, copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(other.eval()(x), module.eval()(x))
        module.train()


def test_modules_of_one_topology_in_several_threads():
    """They share one program, whose room every call fills anew: whatever calls lie between forward and backward."""
    module = ResidualStack(6, relu_layers("batch"), seed=0)

    def steps(seed):
        own, x = copy.deepcopy(module), inputs(50 + 40 * seed, seed=seed)
        for _ in range(10):
            own.zero_grad()
            own(x).square().mean().backward()
        return [*(p.grad for p in own.parameters()), *own.buffers()]

    with ThreadPoolExecutor(4) as pool:
        for seed, together in enumerate(pool.map(steps, range(4))):
            assert all(torch.equal(a, b) for a, b in zip(together, steps(seed), strict=True))


def test_memory_of_a_stack_lives_as_long_as_its_modules():
    module = ResidualStack(6, layers(), seed=0)
    module(inputs(5)).sum().backward()
    (topology,) = [t for t in module._described.values() if '"float32"' in t]
    kept = weakref.ref(stack_operators.room(topology))
    assert kept().programs
    file = io.BytesIO()
    torch.save(module, file)
    module = copy.deepcopy(module)
    assert kept() is stack_operators.room(topology)
    del module
    gc.collect()
    assert kept() is None
    file.seek(0)
    torch.load(file, weights_only=False)(inputs(5)).sum().backward()


def test_networks_there_and_back():
    net = rc.Network(6, layers(), seed=4)
    module = ResidualStack.from_network(net).eval()
    x = inputs(30)
    assert relative(module(x), net(x)) < 1e-6
    back = module.to_network()
    assert back.layers == net.layers
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert np.array_equal({**back.parameters(), **back.buffers()}[name], array), name


def test_the_seed_is_pytorchs_unless_given():
    torch.manual_seed(3)
    a = ResidualStack(4, [rc.Layer(4)])
    torch.manual_seed(3)
    assert torch.equal(a.layers[0].weight, ResidualStack(4, [rc.Layer(4)]).layers[0].weight)


def test_residual_layer_is_the_function_with_parameters():
    layer = ResidualLayer((4, 3), 5, activation="tanh")
    a, b, skip = inputs(6, 4), inputs(6, 3), inputs(6, 5)
    expected = residual([a, b], [w.t() for w in layer.weights], layer.bias, [skip], "tanh")
    assert torch.equal(layer(a, b, identity=[skip]), expected)
    linear = F.linear(a, layer.weights[0]) + F.linear(b, layer.weights[1], layer.bias) + skip
    torch.testing.assert_close(expected, torch.tanh(linear))
    assert ResidualLayer(4, 5, bias=False)(a).shape == (6, 5)
    assert list(layer.state_dict()) == ["bias", "weights.0", "weights.1"]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 5), rc.ShapeError, r"x must be a tensor of shape \(batch, 6\), got \(3, 5\)"),
        (torch.zeros(6), rc.ShapeError, r"got \(6,\)"),
        (np.zeros((3, 6)), rc.ShapeError, "got ndarray"),
        (torch.zeros(3, 6, dtype=torch.float64), rc.DTypeError, "got torch.float64 for torch.float32"),
        (torch.zeros(3, 6, dtype=torch.int64), rc.DTypeError, "got torch.int64"),
        (torch.zeros(1, 6), ValueError, "at least 2 rows"),
    ],
)
def test_bad_inputs(x, error, message):
    with pytest.raises(error, match=message):
        ResidualStack(6, layers(), seed=0)(x)


def test_a_layer_in_another_dtype():
    module = ResidualStack(6, layers(), seed=0)
    module.layers[2].double()
    with pytest.raises(rc.DTypeError, match=r"got torch\.float32 for torch\.float32, torch\.float64"):
        module(inputs(3))


def test_bad_modules():
    with pytest.raises(rc.ShapeError, match="widths must be at least 1"):
        ResidualLayer((4, 0), 5)
    with pytest.raises(rc.ShapeError, match="widths must be at least 1"):
        ResidualLayer((), 5)
    for widths in ((4.0, 5), (True, 5), ("4", 5), ((4, None), 5), (4, 2.5)):
        with pytest.raises(rc.DTypeError, match=r"ResidualLayer: (in|out)_features must be an int"):
            ResidualLayer(*widths)
    assert ResidualLayer(np.int64(4), np.int64(5)).in_features == (4,)
    for make in (
        lambda: ResidualLayer(4, 5, dtype=torch.float16),
        lambda: ResidualStack(4, [rc.Layer(4)], dtype="float32"),
    ):
        with pytest.raises(
            rc.DTypeError, match=r"dtype must be torch\.float32, torch\.float64 or torch\.bfloat16, got"
        ):
            make()
    with pytest.raises(ValueError, match="unknown activation 'swish'; known are identity"):
        ResidualLayer(4, 5, activation="swish")
    with pytest.raises(rc.DTypeError, match=r"net must be a resnetcore\.Network, got list"):
        ResidualStack.from_network([])
    with pytest.raises(ValueError, match="before the input"):
        ResidualStack(4, [rc.Layer(4, skips={2: "identity"})])


def test_device_0_is_a_gpu():
    if torch.cuda.is_available():
        assert ResidualStack(4, [rc.Layer(4)], device=0).layers[0].weight.is_cuda
    else:
        with pytest.raises((AssertionError, RuntimeError)):  # PyTorch's own
            ResidualStack(4, [rc.Layer(4)], device=0)


def test_prediction_is_taken_in_parts_that_are_forgotten(monkeypatch):
    module = ResidualStack(6, layers(), seed=0).eval()
    x = inputs(701)
    whole = module(x.requires_grad_())
    monkeypatch.setattr(stack_operators, "_PREDICTION_TAPE", 100 * module_tape(module))
    taken = []
    shown = stack_operators.Core.shown

    def look(core, tensors):
        taken.extend(len(t) for t in tensors[:1] if isinstance(tensors, tuple))  # of x, the tape and the outputs
        return shown(core, tensors)

    monkeypatch.setattr(stack_operators.Core, "shown", look)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(module(x.detach()), whole)
            assert module(x[:0]).shape == (0, 3)
    assert max(taken) <= 100 and sum(taken) == 2 * 701
    module.train()
    with torch.no_grad():
        module(x)
    assert taken[-1] == 701


def module_tape(module):
    run = stack_operators.program(module._described["float32"], False, False)
    return run.tape_bytes(1) - run.tape_bytes(0)

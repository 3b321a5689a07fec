"""`resnetcore.torch` on a GPU: PyTorch's own operations, its memory, its stream.

Where PyTorch sees no GPU these run on the emulation, whose kernels read the CPU's memory as well as their own: what asks
PyTorch where a tensor is, `gpu.order_of`, is told to say that it is on the emulated GPU, and names an emulated stream.
All else is what a GPU's tensors go through, on PyTorch's CPU tensors.
"""

import copy
from contextlib import contextmanager

import numpy as np
import pytest

import resnetcore as rc
from gpu_memory import OtherStream, emulated
from resnetcore import _core

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from resnetcore.torch import ResidualLayer, ResidualStack, gpu, residual, stack_loss, stack_operators  # noqa: E402
from test_torch_block import arguments, flat, relative, theirs  # noqa: E402
from test_torch_stack import gradients, inputs, layers, relu_layers, twin_of  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.gpu]
F = torch.nn.functional
OP = torch.ops.resnetcore.residual_forward


class Real:
    """PyTorch's own GPU."""

    def __init__(self, device):
        self.device = torch.device(device)

    @contextmanager
    def cpu(self):
        yield torch.device("cpu")


class Emulated:
    """PyTorch's CPU, and everything there is said to be on the emulated GPU, but inside `cpu`."""

    device = torch.device("cpu")

    def __init__(self, device, monkeypatch):
        self.stream = OtherStream()
        self.asked, self.on = 0, True
        for module in (gpu, stack_operators, stack_loss):
            monkeypatch.setattr(module, "order_of", lambda _: self._order(device))

    def _order(self, device):
        self.asked += self.on
        return gpu.Order(device, self.stream.handle) if self.on else None

    @contextmanager
    def cpu(self):
        self.on = False
        yield self.device
        self.on = True


@pytest.fixture(params=["emulated", "real"])
def at(request, device, monkeypatch):
    if request.param == "real":
        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no GPU")
        yield Real(device)
        return
    emulated = Emulated(device, monkeypatch)
    yield emulated
    assert emulated.asked > 0


def there(at, *given):
    """Leaves of their own where `at` is."""
    return [
        [leaf(at, t) for t in one] if isinstance(one, list) else None if one is None else leaf(at, one) for one in given
    ]


def leaf(at, tensor):
    return tensor.detach().to(at.device).clone().requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("rows", [1, 130])
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "softplus", "identity"])
def test_values_and_gradients_are_those_of_pytorch_in_float64(at, name, rows, dtype, bound):
    ours = there(at, *arguments(dtype, rows, (40, 17), 33))
    truth = [t.detach().double().requires_grad_() for t in flat(*ours)]
    a, b = residual(*ours, name), theirs(truth[:2], truth[2:4], truth[4], truth[5:], name)
    assert a.dtype == dtype and a.device == ours[2].device and relative(a, b) < bound
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).to(a)
    if dtype == torch.bfloat16 and name == "relu":
        direction = direction * (b.abs() > 0.1)  # where rounding may not take the other branch
    a.backward(direction), b.backward(direction.double())
    for x, y in zip(flat(*ours), truth, strict=True):
        assert x.grad.dtype == dtype and x.grad.device == x.device
        assert relative(x.grad, y.grad) < 10 * bound


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_operator_is_the_same(at, has_bias):
    sources, weights, bias, identity = there(at, *arguments(torch.float32))
    bias = bias if has_bias else None
    torch.library.opcheck(OP, (sources, weights, bias, identity, "gelu"))
    assert torch.equal(OP(sources, weights, bias, identity, "gelu"), residual(sources, weights, bias, identity, "gelu"))


@pytest.mark.skipif(not hasattr(torch.Tag, "cudagraph_unsafe"), reason="this PyTorch does not know of the tag")
@pytest.mark.parametrize("name", ["residual_forward", "residual_backward"])
def test_operators_are_left_outside_of_cuda_graphs(name):
    assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.resnetcore, name).default.tags


def test_compiled_without_a_break_forward_and_backward(at):
    torch.compiler.reset()
    module = ResidualStack(6, layers(), seed=0).to(at.device)
    other = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = inputs(7).to(at.device)
    compiled(x).square().sum().backward(), other(x).square().sum().backward()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_strided_negated_and_transposed_arguments(at):
    dense = there(at, *arguments(torch.float32, 6, (8,), 8, 1, grad=False))
    views = [
        dense[0][0].t().contiguous().t(),
        dense[1][0].repeat_interleave(2, 1)[:, ::2],
        dense[2].repeat_interleave(3)[::3],
        torch.complex(dense[3][0], -dense[3][0]).conj().imag,
    ]
    assert views[3].is_neg()
    assert torch.equal(residual(views[:1], views[1:2], views[2], views[3:]), residual(*dense))


def test_only_what_is_asked_for_gets_a_gradient(at):
    sources, weights, bias, identity = there(at, *arguments(grad=False))
    assert not residual(sources, weights, bias, identity).requires_grad
    weights[0].requires_grad_()
    residual(sources, weights, bias, identity).sum().backward()
    assert weights[0].grad is not None and weights[1].grad is None


def test_nothing_is_copied(at, monkeypatch):
    seen = []
    kernel = _core.residual_forward_on_gpu_f32

    def look(sources, weights, bias, identity, name, out, stream):
        seen.extend(_core.layout_of(a).ctypes.data for a in [*sources, *weights, bias, *identity, out])
        return kernel(sources, weights, bias, identity, name, out, stream)

    monkeypatch.setattr(_core, "residual_forward_on_gpu_f32", look)
    sources, weights, bias, identity = there(at, *arguments(torch.float32))
    result = residual(sources, weights, bias, identity)
    assert seen == [t.data_ptr() for t in [*sources, *weights, bias, *identity, result]]


def test_a_layer_learns_what_pytorchs_does(at):
    layer = ResidualLayer((6, 3), 4, "tanh", dtype=torch.float64).to(at.device)
    own = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    x, y = inputs(40, dtype=torch.float64).to(at.device), inputs(40, 3, torch.float64, seed=1).to(at.device)
    optimizers = [torch.optim.SGD(parameters, lr=0.1) for parameters in (list(layer.parameters()), own)]
    for _ in range(10):
        ours, expected = layer(x, y), torch.tanh(x @ own[1].t() + y @ own[2].t() + own[0])
        for loss, optimizer in zip((ours, expected), optimizers, strict=True):
            optimizer.zero_grad()
            loss.square().mean().backward()
            optimizer.step()
    for p, q in zip(layer.parameters(), own, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [2, 130])
def test_a_stacks_outputs_gradients_and_statistics_are_pytorchs(at, rows, training, dtype, bound):
    module = ResidualStack(6, layers(), seed=1, dtype=torch.float64).train(training)
    twin = twin_of(module, "float64")
    module.to(at.device, dtype)
    twin.training = training
    x = inputs(rows, dtype=dtype).to(at.device).requires_grad_()
    y = x.detach().cpu().double().requires_grad_()
    ours, truth = module(x), twin(y)
    assert ours.device == x.device and relative(ours.cpu(), truth) < bound
    ours.square().mean().backward(), truth.square().mean().backward()
    assert relative(x.grad.cpu(), y.grad) < (100 if rows == 2 else 10) * bound
    largest = max(p.grad.norm() for p in twin.parameters.values())
    for name, gradient in gradients(module).items():
        assert (gradient.cpu().double() - twin.parameters[name].grad).norm() < 10 * bound * largest, name
    for name, buffer in zip(module._named, module._values(), strict=True):
        if ".running_" in name:
            assert relative(buffer.cpu(), twin.buffers[name]) < bound, name


def test_a_stack_without_rows_or_gradients(at):
    module = ResidualStack(6, layers(False), seed=0, dtype=torch.float64).to(at.device)
    module(inputs(0, dtype=torch.float64).to(at.device)).sum().backward()
    assert not any(p.grad.any() for p in module.parameters())
    x = inputs(9, dtype=torch.float64).to(at.device)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), module.train()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 40])
def test_a_stack_of_one_parameter(at, rows):
    """The bits of many."""
    found = []
    for flat_ in (False, True):
        module = ResidualStack(6, layers(), seed=0, flat=flat_).to(at.device)
        out = module(inputs(rows).to(at.device))
        out.square().sum().backward()
        found.append([out.cpu(), torch.cat([p.grad.flatten() for p in module.parameters()]).cpu()])
        assert len(list(module.parameters())) == 1 or not flat_
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("loss", ["cross_entropy", "huber"])
def test_a_stacks_loss_is_pytorchs_of_its_outputs(at, loss):
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64).to(at.device)
    x, y = inputs(40, dtype=torch.float64), torch.arange(40) % 3
    y, weight = (
        y if loss == "cross_entropy" else inputs(40, 3, torch.float64, 1),
        inputs(40, 1, torch.float64, 2)[:, 0].abs(),
    )
    with at.cpu():
        other = ResidualStack(6, layers(), seed=0, dtype=torch.float64)
        expected = other(x, y, loss, weight)
        expected.backward()
    got = module(x.to(at.device), y.to(at.device), loss, weight.to(at.device))
    got.backward()
    assert got.device.type == at.device.type and "AtOnce" not in got.grad_fn.name()
    assert relative(got, expected) < 1e-12
    assert all(relative(a.grad, b.grad) < 1e-9 for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_drops_and_rounds_as_on_the_cpu(at, dtype):
    stack = [
        rc.Layer(24),
        rc.Layer(24, dropout=0.5, skips={2: "learned"}),
        rc.Layer(24, branch_dropout=0.25),
        rc.Layer(3),
    ]
    module = ResidualStack(6, stack, seed=0, dtype=dtype)
    found = []
    for one in (at.device, None):
        mine = copy.deepcopy(module)
        torch.manual_seed(5)
        if one is None:
            with at.cpu() as cpu:
                out = mine(inputs(40, dtype=dtype).to(cpu))
                out.float().square().sum().backward()
        else:
            mine.to(one)
            out = mine(inputs(40, dtype=dtype).to(one))
            out.float().square().sum().backward()
        found.append([out.cpu(), *(p.grad.cpu() for p in mine.parameters())])
    assert (found[0][0] == 0).any()
    for a, b in zip(*found, strict=True):
        assert relative(a, b) < (1e-5 if dtype == torch.float32 else 2e-2)


def test_twenty_steps_of_pytorchs_optimizer(at):
    module = ResidualStack(6, relu_layers("batch"), seed=0, dtype=torch.float64)
    twin = twin_of(module, "float64")
    module.to(at.device)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, 32))
    losses = []
    for side, parameters, place in (
        (module, module.parameters(), at.device),
        (twin, twin.parameters.values(), torch.device("cpu")),
    ):
        optimizer, history = torch.optim.SGD(parameters, lr=0.02, momentum=0.9), []
        for step in range(20):
            x = inputs(32, dtype=torch.float64, seed=step % 5).to(place)
            loss = F.cross_entropy(side(x), labels.to(place))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        losses.append(history)
    assert losses[1][-1] < losses[1][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_one_forward_may_be_differentiated_twice_and_out_of_order(at):
    module = ResidualStack(6, layers(), seed=0, dtype=torch.float64).to(at.device)
    first, second = (module(inputs(n, dtype=torch.float64, seed=n).to(at.device)).sum() for n in (9, 4))
    parameters = list(module.parameters())
    one = torch.autograd.grad(first, parameters, retain_graph=True)
    torch.autograd.grad(second, parameters)
    again = torch.autograd.grad(first, parameters)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


@pytest.mark.parametrize("kind", ["block", "stack"])
def test_work_comes_in_the_order_of_pytorchs_stream(at, kind):
    """What that stream was given before is seen; that the results are there for what comes after, every test sees."""
    x = inputs(9, dtype=torch.float64).to(at.device)
    if kind == "block":
        weight = inputs(6, 4, torch.float64, seed=1).to(at.device)
        function, truth = (lambda x: residual([x], [weight], activation="tanh")), torch.tanh(x @ weight)
    else:
        module = ResidualStack(6, layers(False), seed=0, dtype=torch.float64)
        function, truth = module.to(at.device), twin_of(module, "float64")(x.cpu()).detach().to(at.device)
    late = torch.zeros_like(x)
    if isinstance(at, Emulated):
        at.stream.write(late.data_ptr(), x.numpy())
        assert not late.any()
        torch.testing.assert_close(function(late), truth)
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(200_000_000)
        late.copy_(x)
        torch.testing.assert_close(function(late) + 0, truth)
        results = [function(late) for _ in range(50)]  # memory that PyTorch uses again
        del late
        assert all(torch.equal(r, results[0]) for r in results)


def test_a_layer_waits_for_nothing_and_copies_nothing(at):
    if isinstance(at, Real):
        pytest.skip("a GPU's module does not count")
    layer = ResidualLayer((6, 3), 4).to(at.device)  # its weights are (out, in), as PyTorch's
    x, y = inputs(9).to(at.device), inputs(9, 3).to(at.device)
    layer(x, y).backward(torch.ones(9, 4, device=at.device))
    before = emulated("waits"), emulated("gathers")
    layer(x, y).backward(torch.ones(9, 4, device=at.device))
    assert (emulated("waits"), emulated("gathers")) == before


def test_tensors_on_several_devices(at):
    place = torch.device("meta")
    with pytest.raises(rc.DeviceError, match=r"weights\[0\] must be on cpu as sources\[0\] is, got a tensor on meta"):
        gpu.check_beside(
            "residual_forward: weights[0]", torch.empty(2, device=place), "sources[0]", torch.device("cpu")
        )
    sources, weights, bias, _ = there(at, *arguments(torch.float32))
    residual(sources, weights, bias)
    if isinstance(at, Real):
        with pytest.raises(rc.DeviceError, match=r"weights\[0\] must be on cuda:0 .* got a tensor on cpu"):
            residual(sources, [weights[0].cpu(), weights[1]], bias)
        with pytest.raises(rc.DeviceError, match=r"sources\[1\] must be in the CPU's memory"):
            residual([sources[0].cpu(), sources[1]], [w.cpu() for w in weights])
        with pytest.raises(rc.DeviceError, match="a parameter must be on cuda:0 as x is, got a tensor on cpu"):
            ResidualStack(6, layers(False))(inputs(3).to(at.device))


def test_dtypes_without_kernels(at):
    sources, weights, bias, identity = there(at, *arguments(torch.float32))
    with pytest.raises(rc.DTypeError, match=r"sources\[0\] must be float32, float64 or bfloat16, got torch.float16"):
        residual([s.half() for s in sources], weights, bias, identity)
    with pytest.raises(rc.DTypeError, match=r"weights\[1\] must be float32 as sources\[0\] is"):
        residual(sources, [weights[0], weights[1].double()], bias, identity)
    with (
        torch.autocast(at.device.type, torch.float16),
        pytest.raises(rc.DTypeError, match=r"autocast asks for .*float16"),
    ):
        residual(sources, weights, bias, identity)
    with torch.autocast(at.device.type, torch.bfloat16):
        assert residual(sources, weights, bias, identity).dtype == torch.bfloat16
        stack = ResidualStack(6, layers(), seed=0).to(at.device)
        assert stack(inputs(4).to(at.device)).dtype == torch.bfloat16


def test_a_module_moves_to_the_gpu_and_back(at):
    module = ResidualStack(6, layers(), seed=0).eval()
    x = inputs(9)
    with at.cpu():
        expected = module(x)
    state = module.to(at.device).state_dict()
    assert all(v.device == module(x.to(at.device)).device for v in state.values())
    torch.testing.assert_close(module(x.to(at.device)).cpu(), expected)
    net = module.to_network()
    np.testing.assert_allclose(net.predict(x.numpy()), expected.detach(), rtol=1e-5, atol=1e-5)
    again = ResidualStack.from_network(net, device=at.device).eval()
    torch.testing.assert_close(again(x.to(at.device)), module(x.to(at.device)))

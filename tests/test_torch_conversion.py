"""Networks made of PyTorch's modules, and modules of networks, compute and train as what they were made of."""

import copy
from dataclasses import replace

import numpy as np
import pytest

import resnetcore as rc
from reference import distance
from strategies import random_case

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402

from resnetcore.torch import PlainStack, ResidualStack, from_module, to_module  # noqa: E402

F = nn.functional
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


def inputs(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype("float32")


def outputs(module, x):
    kept = module.training
    module.eval()
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    module.train(kept)
    return y


def without_dropout(net):
    other = rc.Network(net.inputs, [replace(layer, dropout=0, branch_dropout=0) for layer in net.layers])
    other.set_parameters({**net.parameters(), **net.buffers()})
    return other


def train_both(module, net, steps=6, lr=0.05):
    """Losses of the same batches by PyTorch's SGD and by the trainer."""
    trainer = rc.Trainer(net, loss="mse", optimizer=rc.SGD(lr=lr, momentum=0.9), batch_size=32)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    losses, ours = [], []
    for step in range(steps):
        x, y = inputs(32, net.inputs, 2 * step), inputs(32, net.outputs, 2 * step + 1)
        x, y = x.astype(net.dtype), y.astype(net.dtype)
        optimizer.zero_grad()
        loss = F.mse_loss(module(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        ours.append(trainer.step(x, y))
    return np.array(losses), np.array(ours)


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_there_and_back(seed):
    net = random_case(seed).net
    module = to_module(net)
    back = from_module(module)
    x = inputs(50, net.inputs)
    assert distance(outputs(module, x), net(x)) < 1e-5
    assert distance(back(x), net(x)) < 1e-5
    drops = [[layer.dropout, layer.branch_dropout] for layer in net.layers]
    assert np.sum(drops) == np.sum([[layer.dropout, layer.branch_dropout] for layer in back.layers])


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_train_as_their_modules(seed):
    net = without_dropout(random_case(seed, smooth=True).net)
    module = to_module(net).double()
    back = from_module(module)
    assert back.precision == "float64"
    theirs, ours = train_both(module, back, lr=0.01)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    x = inputs(30, net.inputs).astype("float64")
    assert distance(back(x), outputs(module, x)) < 1e-7  # running statistics too


def test_layers_and_numbers_come_back_as_they_were():
    fixed = inputs(6, 6)
    layers = [
        rc.Layer(6, activation="silu", dropout=0.1),
        rc.Layer(6, norm="batch", skips={2: "identity"}, branch_dropout=0.2),
        rc.Layer(6, skips={2: "learned", 3: fixed}),
        rc.Layer(6, gate=True, activation="gelu", dropout=0.25),
        rc.Layer(5, norm="batch", pre=True, skips={4: "learned"}, branch_dropout=0.125),
        rc.Layer(2, activation=None, bias=False),
    ]
    net = rc.Network(6, layers, seed=2)
    module = to_module(net)
    assert isinstance(module, PlainStack) and module.training
    back = from_module(module)
    assert back.layers == net.layers
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert np.array_equal({**back.parameters(), **back.buffers()}[name], array), name
    names = {"layers.0.linear.weight", "layers.1.norm.running_mean", "layers.2.skips.2.weight", "layers.3.gate.bias"}
    assert names <= module.state_dict().keys()
    assert [n for n, p in module.named_parameters() if not p.requires_grad] == ["layers.2.skips.3.weight"]
    kinds = {type(one) for one in module.modules()}
    assert {nn.Linear, nn.BatchNorm1d, nn.SiLU, nn.GELU, nn.Dropout} <= kinds


@pytest.mark.parametrize("activation", rc.activations())
def test_every_activation(activation):
    net = rc.Network(4, [rc.Layer(4, activation=activation)])
    assert from_module(to_module(net)).layers == net.layers


def test_a_module_is_a_copy_and_takes_no_random_numbers():
    net = rc.Network(3, [rc.Layer(2)], seed=1)
    state = torch.get_rng_state()
    module = to_module(net)
    assert torch.equal(torch.get_rng_state(), state)
    before = net.parameters()["1.weight"]
    with torch.no_grad():
        module.layers[0].linear.weight.zero_()
    assert np.array_equal(net.parameters()["1.weight"], before)
    back = from_module(module)
    back.set_parameters({"1.weight": np.ones((3, 2))})
    assert not module.layers[0].linear.weight.any()
    assert from_module(to_module(net).bfloat16()).precision == "bfloat16"


class Dense(nn.Module):
    """Concatenations, as published (Huang et al. 2017)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5 + 4 * n, 4) for n in range(4))
        self.head = nn.Linear(5 + 16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, torch.tanh(layer(x))], dim=1)
        return self.head(x)


class Mixed(nn.Module):
    """A bias before a norm; a gate; functions, methods, numbers, parameters and in-place operations."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.second, self.gate, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.weight, self.shift = nn.Parameter(torch.randn(8, 8) / 3), nn.Parameter(torch.randn(8))
        self.register_buffer("fixed", torch.randn(5, 8) / 3)
        self.out, self.flatten = nn.Sequential(nn.ReLU(inplace=True), nn.Identity(), nn.Linear(8, 3)), nn.Flatten()

    def forward(self, x):
        a = F.leaky_relu(self.norm(self.first(x)), 0.01)
        z = self.second(a)
        b = 0.5 * z * (1 + torch.erf(z / 2**0.5))
        t = self.gate(b).sigmoid()
        c = (1 - t) * b + t * F.elu(F.linear(b, self.weight))
        z = self.third(c).add(b)
        z += x @ self.fixed
        z = self.flatten(z + self.shift)
        return self.out(z)


@pytest.mark.parametrize("kind", [Dense, Mixed])
def test_modules_that_others_might_write(kind):
    torch.manual_seed(1)
    module = kind()
    x = inputs(40, 5)
    module(torch.from_numpy(3 * x))  # running statistics that are not those of a new module
    net = from_module(module)
    assert distance(net(x), outputs(module, x)) < 1e-6
    if kind is Mixed:
        module.shift.requires_grad_(False)  # with third.bias one bias here, which learns as one
    module.double()
    theirs, ours = train_both(module, from_module(module))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_what_these_modules_become():
    layers = [rc.Layer(4, "tanh", skips={k: "learned" for k in range(2, n + 1)}) for n in range(1, 5)]
    head = rc.Layer(3, None, skips={k: "learned" for k in range(2, 6)})
    assert from_module(Dense()).layers == (*layers, head)
    first, second, gated, sum_, out = from_module(Mixed()).layers
    assert (first, second) == (rc.Layer(8, "leaky_relu", norm="batch"), rc.Layer(8, "gelu"))
    assert gated == rc.Layer(8, "elu", gate=True, bias=False)
    assert sum_.skips.keys() == {2, 4} and sum_.skips[2] == "identity" and sum_.skips[4].shape == (5, 8)
    assert out == rc.Layer(3, None)
    assert from_module(nn.Linear(3, 2)).layers == (rc.Layer(2, None),)
    assert from_module(ResidualStack(3, [rc.Layer(2)], seed=0)).layers == (rc.Layer(2),)
    drops = Of(lambda x, a, b: b(F.dropout(F.relu(a(x)), 0.25, training=False)), *linear(2))
    assert from_module(drops).layers == (rc.Layer(4), rc.Layer(4, None))
    eval_ = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.ReLU(), nn.Linear(3, 2)).eval()
    assert from_module(eval_).layers == (rc.Layer(3, branch_dropout=0.5), rc.Layer(2, None))


class Of(nn.Module):
    """A function of x and some modules."""

    def __init__(self, function, *modules):
        super().__init__()
        self.modules_, self.function = nn.ModuleList(modules), function

    def forward(self, x):
        return self.function(x, *self.modules_)


def linear(n=1, width=4):
    return [nn.Linear(4, width) for _ in range(n)]


def normed(n=1):
    return [nn.Linear(4, 4), *[nn.BatchNorm1d(4) for _ in range(n)], nn.Linear(4, 4), nn.Linear(4, 4)]


def hooked(module, where=lambda module: module, pre=False):
    register = where(module).register_forward_pre_hook if pre else where(module).register_forward_hook
    register(lambda *_: None)
    return module


def frozen(module, number):
    module[number].eval()
    return module


class OwnForward(ResidualStack):
    def forward(self, x):
        return 2 * super().forward(x)


REFUSED = [
    (hooked(nn.Sequential(*linear(2)), lambda m: m[1]), r"node '_1' \(Linear 1\) has forward hooks, which torch.fx does not"),
    (hooked(nn.Sequential(*linear(2)), pre=True), "the module has forward hooks"),
    (hooked(*linear()), "the module has forward hooks"),
    (OwnForward(4, [rc.Layer(4)], seed=0), r"OwnForward is a ResidualStack with a forward\(\) of its own"),
    (frozen(nn.Sequential(*normed()), 1), "BatchNorm1d 1. is in evaluation mode in a module in training mode"),
    (frozen(nn.Sequential(*linear(), nn.Dropout(), *linear()), 1), "Dropout 1. is in evaluation mode in a module in train"),
    (
        Of(lambda x, a, b: (lambda h: b(torch.relu(h + 0.5)) + h)(a(x)), *linear(2)),
        "node 'add' .add. shares its weight with node '.*' .Linear modules_.0., and layers have their own",
    ),
    (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), r"node '_1' \(LayerNorm 1\) is not known; known are the modules Batch"),
    (Of(lambda x, a: torch.softmax(a(x), 1), *linear()), "node 'softmax' .softmax. is not known"),
    (Of(lambda x, a: a(x).clamp(0), *linear()), "node 'clamp' .clamp. is not known"),
    (nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2)), "must have negative_slope=0.01, as leaky_relu has here, got 0.2"),
    (nn.Sequential(nn.Linear(4, 4), nn.GELU("tanh")), "must have approximate=none, as gelu has here, got 'tanh'"),
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, eps=1e-3)), "must have eps=1e-05 and momentum=0.1.*got eps=0.001"),
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.2)), "got eps=1e-05 and momentum=0.2"),
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)), "lacks weight, bias"),
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "lacks running_mean, running_var"),
    (Of(lambda x, a: x + F.relu(a(x)), *linear()), "node 'add' .add. takes the input and node 'relu' .relu., and there is"),
    (Of(lambda x, a: x + a(x), *linear()), "node 'add' .add. adds the input, a second term of the input; a layer reads"),
    (Of(lambda x, a, b: x + 0.5 * b(F.relu(a(x))), *linear(2)), "node 'mul' .mul. multiplies by a constant that is no part"),
    (Of(lambda x, a, b: b(F.relu(a(x))) - x, *linear(2)), "node 'sub' .sub. subtracts a value from another"),
    (Of(lambda x, a: a(F.relu(a(x))), *linear()), "node '.*' .Linear modules_.0. shares its parameters with node"),
    (
        Of(lambda x, a, n, m, b, c: c(m(F.relu(b(n(F.relu(a(x))))))), *normed(2)),
        "multiplies node '.*' .BatchNorm1d modules_.1., and an activation, a norm or a gate comes after it",
    ),
    (Of(lambda x, a: a(F.dropout(x, 0.5)), *linear()), "node 'dropout' .dropout. drops what no layer drops"),
    (
        Of(lambda x, a, n, b, c: c(F.dropout(torch.tanh(b(n(F.relu(a(x))))), 0.5)), *normed()),
        "node 'dropout' .dropout. drops what no layer drops",
    ),
    (Of(lambda x, a, b, c: F.dropout(b(F.relu(a(x))), 0.5) + c(x), *linear(3)), "adds a bias after the layer's dropout"),
    (
        Of(lambda x, a, b, c: (lambda z: c(F.relu(z, inplace=True)) + z)(b(F.relu(a(x)))), *linear(3)),
        "reads a tensor that node '.*' .relu. has changed in place",
    ),
    (Of(lambda x, a: torch.add(a(x), x, alpha=2), *linear()), "must have alpha=1, got 2"),
    (Of(lambda x, a: (a(x), x), *linear()), "the output must be one tensor, got tuple"),
    (Of(lambda x, a: x, *linear()), "the output is the input itself"),
    (Of(lambda x, a: a.weight, *linear()), "the output is a constant"),
    (Of(lambda x, a: a(x) if x.sum() > 0 else x, *linear()), "torch.fx cannot trace Of: symbolically traced variables"),
    (nn.Bilinear(4, 4, 4), "the module must have one input, got 2"),
    (Of(lambda x, a, b: b(a(x)), *linear(1, 3), *linear()), "node .* needs 4 columns, and node .* gives 3"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_no_network_is_refused_by_its_first_node(module, message):
    with pytest.raises(rc.ConversionError, match=message) as caught:
        from_module(module)
    assert str(caught.value).startswith("torch.from_module: ")


def test_arguments_of_the_wrong_type():
    with pytest.raises(rc.DTypeError, match=r"must be a torch\.nn\.Module, got list"):
        from_module([])
    with pytest.raises(rc.DTypeError, match=r"must be all float32, all float64 or all bfloat16, got torch\.float16"):
        from_module(nn.Linear(3, 3).half())
    mixed = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())
    with pytest.raises(rc.DTypeError, match=r"got torch\.float32, torch\.float64"):
        from_module(mixed)
    with pytest.raises(rc.DTypeError, match="got no parameters"):
        from_module(nn.ReLU())
    with pytest.raises(rc.DTypeError, match=r"net must be a resnetcore\.Network, got Linear"):
        to_module(nn.Linear(3, 3))


def test_a_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval()
    before = copy.deepcopy(module.state_dict())
    from_module(module)
    assert not module.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))

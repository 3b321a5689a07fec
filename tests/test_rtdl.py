"""The tabular ResNet of Gorishniy et al. 2021 in its authors' package, converted: the same outputs, the same training."""

import copy
from dataclasses import replace

import numpy as np
import pytest

import resnetcore as rc
from reference import distance

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
rtdl = pytest.importorskip("rtdl_revisiting_models", reason="rtdl_revisiting_models is not installed")

from resnetcore.torch import from_module  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
INPUTS, CLASSES, ROWS, STEPS = 12, 3, 64, 20


def model(dropout=0.0, outputs=CLASSES):
    torch.manual_seed(0)
    return rtdl.ResNet(
        d_in=INPUTS, d_out=outputs, n_blocks=3, d_block=48, d_hidden=None, d_hidden_multiplier=2.0,
        dropout1=2 * dropout, dropout2=dropout,
    )  # fmt: skip


def batches(dtype):
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        x = rng.standard_normal((ROWS, INPUTS)).astype("float32")
        yield x.astype(dtype), (x[:, :CLASSES] * x[:, CLASSES : 2 * CLASSES]).argmax(axis=1)


def losses_of_torch(module, dtype):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    losses = []
    for x, y in batches(dtype):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def outputs_of_torch(module, x):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def test_its_layers_are_those_of_our_builder():
    net = from_module(model(0.1))
    ours = rc.models.tabular_resnet(INPUTS, CLASSES, width=48, depth=8, dropout=0.2, residual_dropout=0.1)
    assert net.layers == tuple(replace(layer, init_scale=1.0) for layer in ours.layers)
    body = from_module(model(outputs=None))  # without its last layers, which are of one kind each
    assert body.outputs == 48 and body.layers[1:] == from_module(model()).layers[1:-1]


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 5e-6), ("float64", 1e-12)])
def test_the_same_outputs_and_the_same_first_twenty_losses(dtype, bound):
    exact = model().double()
    module = copy.deepcopy(exact).to(getattr(torch, dtype))
    net = from_module(module)
    assert net.precision == dtype
    x = next(batches(dtype))[0]
    before = copy.deepcopy(module)
    assert distance(net(x), outputs_of_torch(copy.deepcopy(exact), x.astype("float64"))) < bound
    trainer = rc.Trainer(net, loss="cross_entropy", optimizer=rc.SGD(lr=0.2), batch_size=ROWS)
    ours = np.array([trainer.step(*batch) for batch in batches(dtype)])
    truth, theirs = losses_of_torch(exact, "float64"), losses_of_torch(module, dtype)
    assert truth[-1] < 0.9 * truth[0]  # it learns
    assert distance(ours, truth) < max(bound, 4 * distance(theirs, truth))
    after = outputs_of_torch(exact, x.astype("float64"))
    assert distance(net(x), after) < max(bound, 4 * distance(outputs_of_torch(module, x), after))
    assert distance(after, outputs_of_torch(before, x)) > 0.1


def test_its_mlp():
    torch.manual_seed(0)
    module = rtdl.MLP(d_in=INPUTS, d_out=2, n_blocks=3, d_block=16, dropout=0.25)
    net = from_module(module)
    assert net.layers == (*[rc.Layer(16, dropout=0.25)] * 3, rc.Layer(2, None))
    x = next(batches("float32"))[0]
    assert distance(net(x), outputs_of_torch(module, x)) < 5e-6

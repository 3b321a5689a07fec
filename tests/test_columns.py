"""Steps on few rows: threads divide the columns of products instead of the rows, and the bits are the same."""

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core

INPUTS, WIDTH, OUTPUTS = (
    200,
    250,
    30,
)  # weights that are worth a barrier; and of the last ones fewer panels than threads
KINDS = {
    "identity": {},
    "norm": {"norm": "batch"},
    "pre": {"norm": "batch", "pre": True},
    "gate": {"gate": True},
    "dropout": {"dropout": 0.25, "branch_dropout": 0.25},
    "dropout with norm": {"norm": "batch", "dropout": 0.25, "branch_dropout": 0.25},
    "dropout with pre": {"norm": "batch", "pre": True, "dropout": 0.25, "branch_dropout": 0.25},
    "dropout with gate": {"gate": True, "dropout": 0.25},
}
SETTINGS = [
    {"optimizer": rc.SGD(lr=0.01)},
    {"optimizer": rc.AdamW(lr=0.01), "clip_norm": 0.1},
    {"optimizer": rc.SGD(lr=0.01, momentum=0.9), "accumulate": 2},
]


@pytest.fixture(autouse=True)
def restored():
    strategy, threads = _core.get_strategy(), rc.get_num_threads()
    _core.set_strategy("by_layer")
    yield
    _core.set_strategy(strategy)
    rc.set_num_threads(threads)


def network(kind, dtype="float32", products="highest"):
    skips = ({}, {2: "learned"}, {2: "identity"}, {3: "identity"})
    gate = KINDS[kind].get("gate")
    layers = [
        rc.Layer(
            WIDTH, activation="gelu" if n == 1 else "relu", **(KINDS[kind] if n else {}), skips={} if gate else back
        )
        for n, back in enumerate(skips)
    ]
    last = rc.Layer(OUTPUTS, activation=None, skips={3: "learned"})
    return rc.Network(INPUTS, [*layers, last], seed=1, dtype=dtype, matmul_precision=products)


def divides(net, rows, threads):
    rc.set_num_threads(threads)
    return "each thread some columns of every product" in str(net.explain(training=True, batch=rows))


def data(rows, dtype="float32"):
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, INPUTS)).astype("float64" if dtype == "float64" else "float32")
    return x, rng.integers(0, OUTPUTS, rows)


def trained(kind, rows, threads, dtype="float32", products="highest", **settings):
    rc.set_num_threads(threads)
    net = network(kind, dtype, products)
    x, y = data(rows, dtype)
    trainer = rc.Trainer(net, seed=2, batch_size=max(rows, 4), **(settings or SETTINGS[0]))
    losses = [trainer.step(x, y) for _ in range(3)]
    _, gradients, d_x = net.gradients(x, y)
    return [np.array(losses), d_x, *gradients.values(), *net.parameters().values(), *net.buffers().values()]


def assert_same_bits(first, second):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("rows", [5, 33, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits(kind, rows):
    assert divides(network(kind), rows, 2)
    expected = trained(kind, rows, 1)
    for threads in (2, 3):
        assert_same_bits(trained(kind, rows, threads), expected)


@pytest.mark.parametrize("rows", [33, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_add_gradients_by_rows(kind, rows):
    expected = trained(kind, rows, 2)
    _core.set_strategy("by_tile")
    assert not divides(network(kind), rows, 2)
    assert_same_bits(trained(kind, rows, 2), expected)


@pytest.mark.parametrize(("dtype", "products"), [("float64", "highest"), ("bfloat16", "highest"), ("float32", "high")])
@pytest.mark.parametrize("kind", ["identity", "norm", "dropout"])
def test_the_same_bits_in_every_precision(kind, dtype, products):
    assert divides(network(kind, dtype, products), 40, 2)
    assert_same_bits(trained(kind, 40, 2, dtype, products), trained(kind, 40, 1, dtype, products))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_same_bits_for_every_update(settings):
    assert divides(network("identity"), 24, 2)
    assert_same_bits(trained("identity", 24, 2, **settings), trained("identity", 24, 1, **settings))


@pytest.mark.parametrize("kind", ["norm", "dropout"])
def test_micro_batches_on_both_sides_of_the_border(kind):
    settings = SETTINGS[2]
    assert divides(network(kind), 128, 2)
    assert not divides(network(kind), 129, 2)
    assert_same_bits(trained(kind, 257, 2, **settings), trained(kind, 257, 1, **settings))


def test_batches_of_many_sizes_share_one_room():
    """Divided by rows, by columns, and by other numbers of threads, in turn."""
    batches = [(128, 2), (40, 3), (500, 2), (60, 2), (128, 3), (9, 2), (129, 2), (128, 2)]
    found = []
    for alone in (True, False):
        trainer = rc.Trainer(network("dropout with norm"), seed=2, batch_size=500)
        losses = []
        for rows, threads in batches:
            rc.set_num_threads(1 if alone else threads)
            losses.append(trainer.step(*data(rows)))
        found.append([np.array(losses), *trainer.net.parameters().values()])
    assert_same_bits(*found)


def test_activations():
    net, (x, y) = network("norm"), data(33)
    found = []
    for threads in (1, 2):
        rc.set_num_threads(threads)
        diagnosis = net.diagnose(x, y)
        found.append(
            [np.asarray(a) for a in (diagnosis.gradient_norm, diagnosis.skip_ratio, diagnosis.activation_norm)]
        )
    assert_same_bits(*found)


def test_one_row():
    assert divides(network("identity"), 1, 2)
    assert_same_bits(trained("identity", 1, 2), trained("identity", 1, 1))


@pytest.mark.parametrize(
    ("rows", "width", "threads", "divided"),
    [
        (64, 256, 2, True),
        (64, 64, 2, False),  # weights that are not worth a barrier
        (128, 512, 2, True),
        (129, 512, 2, False),  # products that are worth reading all weights
        (200, 512, 4, True),
        (128, 144, 2, False),  # results as large as the weights
        (64, 256, 1, False),
    ],
)
def test_where_columns_are_divided(rows, width, threads, divided):
    assert divides(rc.models.plain(width, width, width, 6), rows, threads) == divided


@pytest.mark.skipif(_core.isa_info()["current"] != "avx512_amx", reason="no matrix unit")
@pytest.mark.parametrize(
    ("rows", "width", "dtype", "products", "divided"),
    [
        (300, 640, "bfloat16", "highest", True),
        (300, 384, "bfloat16", "highest", False),  # weights that arrive in time
        (520, 640, "bfloat16", "highest", False),
        (160, 256, "float32", "high", True),
        (200, 256, "float32", "high", False),
        (160, 256, "float32", "highest", False),
        (400, 2048, "bfloat16", "highest", False),  # rows that leave a core's cache
    ],
)
def test_more_rows_where_products_are_fast(rows, width, dtype, products, divided):
    net = rc.Network(width, [rc.Layer(width)] * 3, dtype=dtype, matmul_precision=products)
    assert divides(net, rows, 2) == divided


@pytest.mark.parametrize(("rows", "dtype", "products"), [(300, "bfloat16", "highest"), (160, "float32", "high")])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_the_same_bits_of_more_rows(rows, dtype, products, norm):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, 600), "float32"), rng.integers(0, 608, rows)
    found = []
    for threads in (1, 2):
        rc.set_num_threads(threads)
        layers = [rc.Layer(608), rc.Layer(608, norm=norm, skips={2: "learned"}), rc.Layer(608, skips={2: "identity"})]
        net = rc.Network(600, layers, seed=1, dtype=dtype, matmul_precision=products)
        losses = [rc.Trainer(net, batch_size=rows).step(x, y) for _ in range(2)]
        found.append([np.array(losses), *net.parameters().values()])
    assert_same_bits(*found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_magnitudes_of_all_columns_are_seen(dtype):
    """A step that would overflow is found out, whichever thread has the column that does it: by the others alone none
    would, as rows · max|A| · max|δ| · lr is below 1e15."""
    rng = np.random.default_rng(0)
    for column in (3, WIDTH - 3):
        net = rc.Network(INPUTS, [*[rc.Layer(WIDTH)] * 4, rc.Layer(1, activation=None)], seed=3, dtype=dtype)
        assert divides(net, 40, 2)
        values = {name: 1e-3 * a for name, a in net.parameters().items()}
        values["1.weight"][:, column] = 1e36
        values["2.weight"][column] = 0
        net.set_parameters(values)
        x, y = np.abs(rng.standard_normal((40, INPUTS))).astype("float32"), np.zeros((40, 1), "float32")
        trainer = rc.Trainer(net, loss="mae", optimizer=rc.SGD(lr=1e12))
        before = net.parameters()
        with pytest.raises(FloatingPointError, match="step 1"):
            trainer.step(x, y)
        assert all(np.array_equal(a, before[name]) for name, a in net.parameters().items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["identity", "norm", "dropout", "dropout with norm"])
def test_inside_pytorch(kind, dtype):
    torch = pytest.importorskip("torch")
    from resnetcore.torch import ResidualStack

    _core.set_strategy("auto")
    layers = network(kind).layers
    assert divides(network(kind, dtype), 40, 2)
    x, y = data(40)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for targets in (False, True):
                torch.manual_seed(0)
                module = ResidualStack(INPUTS, layers).to(getattr(torch, dtype))
                a, b = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True), torch.tensor(y)
                loss = module(a, b) if targets else torch.nn.functional.cross_entropy(module(a).float(), b)
                loss.backward()
                arrays = [loss.detach(), a.grad, *(p.grad for p in module.parameters()), *module.buffers()]
                arrays.append(module.eval()(a).detach())
                found.append([t.float().numpy() for t in arrays])
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(found[0], found[2])
    assert_same_bits(found[1], found[3])


@pytest.mark.parametrize(("rows", "width", "used"), [(4, 64, 1), (6, 64, 1), (16, 64, 2), (1, 256, 2), (6, 256, 2)])
def test_few_rows_are_not_divided_among_threads(rows, width, used):
    """A few rows take one thread no longer than half of them; where columns are divided, they do."""
    rc.set_num_threads(2)
    assert f"on {used} thread" in str(rc.models.plain(width, 10, width, 32).explain(training=True, batch=rows))

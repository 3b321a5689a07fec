"""How a step takes its weight gradients is a matter of speed: layer by layer or tile by tile, the bits are the same."""

import os
import subprocess
import sys

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core

# Rows: fewer than a tile of 128, one tile, several, and a part of one at the end.
ROWS = (5, 128, 300, 517)
NETWORKS = {
    "identity": {"layers": 6},
    "dropout": {"layers": 4, "dropout": 0.25, "branch_dropout": 0.25},
    "norm": {"layers": 4, "norm": "batch"},
    "norm without skips": {"layers": 4, "widths": (64, 21, 40, 37), "norm": "batch", "skips": {}},
    "pre": {"layers": 4, "norm": "batch", "pre": True},
    "gate": {"layers": 4, "gate": True},
}


@pytest.fixture(autouse=True)
def restored():
    strategy, threads = _core.get_strategy(), rc.get_num_threads()
    yield
    _core.set_strategy(strategy)
    rc.set_num_threads(threads)


def trained(kind, rows, strategy, threads, dtype="float32", **settings):
    _core.set_strategy(strategy)
    rc.set_num_threads(threads)
    rng = np.random.default_rng(rows)
    x, y = (
        rng.standard_normal((rows, 19)).astype("float64" if dtype == "float64" else "float32"),
        rng.integers(0, 5, rows),
    )
    options = dict(NETWORKS[kind])
    layers = [rc.Layer(37)]
    depth = options.pop("layers")
    for number, width in enumerate(options.pop("widths", depth * [37]), 2):
        back = {2: "identity", 3: "learned"} if number > 3 else {}
        layers.append(rc.Layer(width, activation=("relu", "gelu")[number % 2], **{"skips": back, **options}))
    net = rc.Network(19, [*layers, rc.Layer(5, activation=None, skips={2: "learned"})], seed=1, dtype=dtype)
    settings.setdefault("optimizer", rc.SGD(lr=0.01, momentum=0.9))
    trainer = rc.Trainer(net, seed=2, batch_size=max(rows, 8), **settings)
    losses = [trainer.step(x, y) for _ in range(3)]
    _, gradients, d_x = net.gradients(x, y)
    return [np.array(losses), d_x, *gradients.values(), *net.parameters().values(), *net.buffers().values()]


def assert_same_bits(first, second):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_same_bits_at_any_number_of_threads(kind, rows):
    expected = trained(kind, rows, "by_layer", 1)
    for threads in (1, 2, 3):
        for strategy in ("by_layer", "by_tile", "auto"):
            assert_same_bits(trained(kind, rows, strategy, threads), expected)


@pytest.mark.parametrize("kind", ["norm", "norm without skips", "pre"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_same_bits_with_norms_in_other_precisions(kind, dtype):
    expected = trained(kind, 517, "by_layer", 1, dtype)
    for threads in (1, 2, 3):
        assert_same_bits(trained(kind, 517, "by_tile", threads, dtype), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": rc.SGD(lr=0.01)},
        {"optimizer": rc.SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01)},
        {"optimizer": rc.Adam(lr=0.001)},
        {"optimizer": rc.AdamW(lr=0.001, weight_decay=0.1)},
        {"clip_norm": 0.1},
        {"accumulate": 3},
        {"accumulate": 2, "clip_norm": 0.1, "optimizer": rc.AdamW(lr=0.001)},
    ],
    ids=["sgd", "nesterov", "adam", "adamw", "clip", "accumulate", "all"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_same_bits_for_every_update(settings, dtype):
    expected = trained("identity", 300, "by_layer", 1, dtype, **settings)
    for threads in (1, 2):
        assert_same_bits(trained("identity", 300, "by_tile", threads, dtype, **settings), expected)


def test_what_a_norm_alone_makes_is_not_kept():
    """By tile: 2 and 3 are made again where they are read, and 5 is read where it is made; 1 has no norm, 4 a skip."""
    _core.set_strategy("by_tile")
    skips = {4: {2: "identity"}}
    layers = [rc.Layer(32, norm="batch" if n > 1 else None, skips=skips.get(n, {})) for n in range(1, 6)]
    net = rc.Network(32, [*layers, rc.Layer(3, activation=None)])
    plan = str(net.explain(training=True, batch=300))
    arenas = {line.split("]")[0].strip(" ["): "of the tile" in line for line in plan.splitlines() if "alive in" in line}
    assert {name for name in arenas if name.endswith("again")} == {"2 again", "3 again"}
    assert arenas["2 again"] and arenas["3"] and arenas["5"] and arenas["4.branch.delta"]
    assert not (arenas["1"] or arenas["2"] or arenas["4"] or arenas["3.branch"] or arenas["3.delta"])  # 4 reads 2
    _core.set_strategy("by_layer")
    plan = str(net.explain(training=True, batch=300))
    assert "again" not in plan and "of the tile" not in plan


@pytest.mark.parametrize("rows", [129, 257, 513])
def test_micro_batches_whose_statistics_are_cut_differently(rows):
    """The smaller one is a power of two, whose rows are summed in more chunks than those of the larger one."""
    expected = trained("norm", rows, "by_layer", 1, accumulate=2)
    for strategy, threads in (("by_layer", 2), ("by_tile", 1), ("by_tile", 2)):
        assert_same_bits(trained("norm", rows, strategy, threads, accumulate=2), expected)


@pytest.mark.parametrize("strategy", ["by_layer", "by_tile"])
def test_a_loss_that_is_not_finite_names_its_layer_and_changes_nothing(strategy):
    _core.set_strategy(strategy)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 7)).astype("float32"), rng.integers(0, 3, 300)
    net = rc.models.plain(7, 3, 16, 4)
    trainer = rc.Trainer(net, accumulate=2)
    trainer.step(x, y)
    before = {name: a.copy() for name, a in net.parameters().items()}
    bad = dict(before)
    bad["2.bias"] = np.full(16, np.inf, "float32")
    net.set_parameters(bad)
    with pytest.raises(FloatingPointError, match=r"step 2.*layer 2"):
        trainer.step(x, y)
    assert all(np.array_equal(a, bad[name]) for name, a in net.parameters().items())
    x[200, 3] = np.nan
    net.set_parameters(before)
    with pytest.raises(FloatingPointError, match="input"):
        trainer.step(x, y)


def test_forced_by_the_environment():
    code = "from resnetcore import _core; print(_core.get_strategy())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RESNETCORE_STRATEGY": "by_tile"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "by_tile"
    with pytest.raises(ValueError, match=r"by_layer.*got \"nonsense\""):
        _core.set_strategy("nonsense")


@pytest.mark.parametrize(
    ("rows", "width", "depth", "settings", "way"),
    [
        (1024, 64, 4, {}, "tile"),
        (256, 512, 4, {}, "layer"),  # two tiles, and weights that are much beside them
        (256, 256, 4, {}, "tile"),
        (256, 256, 4, {"dtype": "bfloat16"}, "layer"),  # gradients in four bytes, activations in two
        (40, 64, 4, {}, "layer"),  # less than a tile a thread
        (512, 512, 6, {}, "tile"),
        (512, 512, 6, {"dense": 4}, "layer"),
        (512, 256, 6, {"dense": 4}, "tile"),  # each activation comes back four times
        (512, 64, 4, {"norm": "batch"}, "tile"),
        (512, 512, 4, {"norm": "batch"}, "layer"),
    ],
)
def test_what_is_chosen_on_two_threads(rows, width, depth, settings, way):
    _core.set_strategy("auto")
    rc.set_num_threads(2)
    options = dict(settings)
    reach, dtype = options.pop("dense", 1), options.pop("dtype", "float32")
    layers = [
        rc.Layer(width, skips=dict.fromkeys(range(2, min(reach, n) + 1), "learned"), **options)
        for n in range(1, depth + 1)
    ]
    net = rc.Network(width, layers, dtype=dtype)
    assert f"weight gradients by {way} (" in str(net.explain(training=True, batch=rows))


def test_more_than_two_threads_do_not_take_turns_between_norms():
    _core.set_strategy("auto")
    net = rc.models.plain(64, 5, 64, 4, norm="batch")
    for threads, way in ((1, "tile"), (2, "tile"), (3, "layer")):
        rc.set_num_threads(threads)
        assert f"weight gradients by {way} (" in str(net.explain(training=True, batch=1024))

"""Network and Layer behave as their docstrings say; the numbers are tested against the reference elsewhere."""

import copy
import dataclasses
import os
import pickle
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import resnetcore as rc


def small(dtype="float32", seed=0):
    matrix = np.linspace(-1, 1, 6 * 6).reshape(6, 6)
    return rc.Network(
        4,
        [
            rc.Layer(6),
            rc.Layer(6, norm="batch"),
            rc.Layer(6, skips={2: "identity"}),
            rc.Layer(6, skips={2: "learned", 4: "learned"}),
            rc.Layer(6, skips={2: matrix}),
            rc.Layer(6, gate=True),
            rc.Layer(3, activation=None),
        ],
        seed=seed,
        dtype=dtype,
    )


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)


def test_layer_is_checked_and_normalised():
    layer = rc.Layer(np.int64(5), activation=None, skips={3: "learned", np.int32(2): "identity"})
    assert (layer.width, layer.activation, list(layer.skips)) == (5, "identity", [2, 3])
    assert repr(layer) == "Layer(5, activation='identity', skips={2: 'identity', 3: 'learned'})"
    assert rc.Layer(**layer.to_dict()) == layer
    with pytest.raises(AttributeError):
        layer.width = 6


def test_layers_compare_by_value():
    matrix = np.eye(3)
    assert rc.Layer(3, skips={2: matrix}) == rc.Layer(3, skips={2: matrix.copy()})
    assert rc.Layer(3, skips={2: matrix}) != rc.Layer(3, skips={2: 2 * matrix})
    assert rc.Layer(3, skips={2: matrix}) != rc.Layer(3, skips={2: "learned"})
    assert len({rc.Layer(3), rc.Layer(3), rc.Layer(4)}) == 2


def test_a_fixed_matrix_is_copied():
    matrix = np.ones((3, 3))
    layer = rc.Layer(3, skips={2: matrix})
    matrix[:] = 7
    assert (layer.skips[2] == 1).all()


def test_names_of_parameters_and_buffers():
    net = small()
    assert set(net.parameters()) == {
        *(f"{n}.weight" for n in range(1, 8)),
        *(f"{n}.bias" for n in (1, 3, 4, 5, 6, 7)),
        *("2.norm.weight", "2.norm.bias", "4.skip.2.weight", "4.skip.4.weight", "6.gate.weight", "6.gate.bias"),
    }
    assert set(net.buffers()) == {"2.norm.running_mean", "2.norm.running_var", "5.skip.2.weight"}
    assert net.parameters()["4.skip.4.weight"].shape == (4, 6)
    assert (net.parameters()["6.gate.bias"] == -2).all()
    np.testing.assert_allclose(net.buffers()["5.skip.2.weight"], np.linspace(-1, 1, 36).reshape(6, 6), atol=1e-7)


def test_parameters_are_copies(X):
    net = small()
    before = net.predict(X)
    for array in {**net.parameters(), **net.buffers()}.values():
        array[:] = 5
    np.testing.assert_array_equal(net.predict(X), before)


def test_set_parameters_takes_a_subset(X):
    net = small()
    new = np.full((6, 3), 0.5, np.float32)
    net.set_parameters({"7.weight": new})
    np.testing.assert_array_equal(net.parameters()["7.weight"], new)
    other = small(seed=5)
    other.set_parameters({**net.parameters(), **net.buffers()})
    np.testing.assert_array_equal(other.predict(X), net.predict(X))


@pytest.mark.parametrize(
    "values, error",
    [
        ({"7.bias": np.ones(3), "nonsense": np.ones(3)}, ValueError),
        ({"7.bias": np.ones(3), "1.bias": np.ones(5)}, rc.ShapeError),
        ({"7.bias": np.ones(3), "1.bias": np.ones(6, int)}, rc.DTypeError),
        ({"7.bias": np.ones(3), "1.bias": "ones"}, rc.DTypeError),
        ({"7.bias": np.ones(3), 1: np.ones(6)}, (rc.DTypeError, ValueError)),
        ([("7.bias", np.ones(3))], rc.DTypeError),
    ],
)
def test_set_parameters_is_all_or_nothing(values, error):
    net = small()
    before = {**net.parameters(), **net.buffers()}
    with pytest.raises(error):
        net.set_parameters(values)
    after = {**net.parameters(), **net.buffers()}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_seed_decides_the_weights():
    assert all(
        np.array_equal(a, b) for a, b in zip(small().parameters().values(), small().parameters().values(), strict=True)
    )
    assert not np.array_equal(small().parameters()["1.weight"], small(seed=1).parameters()["1.weight"])
    assert small(seed=2**64 - 1).seed == 2**64 - 1


def test_calling_is_predicting(X):
    net = small()
    assert net(X).shape == (9, 3)
    assert net(X).dtype == np.float32
    np.testing.assert_array_equal(net(X), net.predict(X))


def test_predict_takes_arrays_of_any_layout_and_either_dtype(X):
    net = small()
    expected = net.predict(X)
    wide = np.zeros((18, 8), np.float32)
    wide[::2, ::2] = X
    unaligned = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)
    variants = [X.astype(np.float64), np.asfortranarray(X), wide[::2, ::2], X[::-1].copy()[::-1], unaligned, X.tolist()]
    for variant in variants:
        np.testing.assert_array_equal(net.predict(variant), expected)


def test_predict_of_no_rows():
    assert small().predict(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_a_row_does_not_depend_on_its_batch(X):
    net = small()
    together = net.predict(X)
    for i in range(len(X)):
        np.testing.assert_array_equal(net.predict(X[i : i + 1])[0], together[i])


def test_nan_propagates_unless_asked_about(X):
    net = small()
    X[3, 1] = np.nan
    assert np.isnan(net.predict(X)[3]).all()
    assert np.isfinite(np.delete(net.predict(X), 3, axis=0)).all()
    with pytest.raises(ValueError, match="finite"):
        net.predict(X, check_finite=True)


def test_predict_proba(X):
    p = small().predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    binary = rc.Network(4, [rc.Layer(1, activation=None)])
    np.testing.assert_allclose(binary.predict_proba(X), 1 / (1 + np.exp(-binary.predict(X))), rtol=1e-6)
    assert (binary.predict_proba(1e4 * X) >= 0).all()


def test_gradients_have_the_names_and_shapes_of_parameters(X):
    net = small()
    y = np.arange(9) % 3
    loss, gradients, d_x = net.gradients(X, y)
    assert isinstance(loss, float)
    assert {n: g.shape for n, g in gradients.items()} == {n: p.shape for n, p in net.parameters().items()}
    assert d_x.shape == X.shape


def test_gradients_update_nothing(X):
    net = small()
    before = {**net.parameters(), **net.buffers()}
    net.gradients(X, np.arange(9) % 3)
    after = {**net.parameters(), **net.buffers()}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_copies_share_nothing(X):
    net = small()
    for other in (net.copy(), copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.to("cpu")):
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
        other.set_parameters({"1.weight": np.zeros((4, 6))})
        assert net.parameters()["1.weight"].any()
        assert other.layers == net.layers


def test_astype(X):
    net = small()
    double = net.astype("float64")
    assert (net.dtype, double.dtype, double.predict(X).dtype) == (np.float32, np.float64, np.float64)
    np.testing.assert_allclose(double.predict(X), net.predict(X), rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(double.parameters()[n], p.astype(np.float64)) for n, p in net.parameters().items())
    back = double.astype(np.float32)
    np.testing.assert_array_equal(back.predict(X), net.predict(X))


def test_dtypes_and_devices_of_other_builds():
    net = small()
    with pytest.raises(rc.BuildFeatureError, match="float16"):
        net.astype("float16")
    with pytest.raises(rc.DeviceError, match=r"to: .*cuda:99"):
        net.to("cuda:99")
    with pytest.raises(rc.DeviceError, match=r"Network: .*cuda:99"):
        rc.Network(4, [rc.Layer(3)], device="cuda:99")
    with pytest.raises(rc.DeviceError, match=r"load: device must be"):
        rc.load("no such file", device="gpu")
    with pytest.raises(rc.DTypeError):
        rc.Network(4, [rc.Layer(3)], dtype="int32")


def test_summary_counts_parameters():
    net = small()
    text = str(net.summary())
    assert "identity from 1" in text
    assert "learned from 2, learned from 0" in text
    assert "fixed from 3" in text
    assert f"{sum(p.size for p in net.parameters().values()):,} trained parameters" in text
    assert len(text.splitlines()) == 2 + 8 + 1
    assert repr(net.summary()) == text


def test_explain_names_every_layer():
    for training in (False, True):
        text = small().explain(training=training)
        for number in range(1, 8):
            assert f"{number}.weight" in text, (training, number)
    assert "loss.gradient" in text and "7.delta" not in str(small().explain())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_explain_says_what_each_step_reads_and_writes(training, dtype):
    net = rc.Network(4, [*small().layers[:2], rc.Layer(6, gate=True), rc.Layer(2)], dtype=dtype)
    lines = [line.strip() for line in net.explain(training).splitlines()]
    steps = [line for line in lines if " layer " in line and ":" in line and not line.startswith("a step on")]
    for line in steps:
        assert re.fullmatch(
            r"\w+ layer \d: ((\[[\w.]+\] )+<- |\d[\w.]*weight: )?[^ ]+((, | \+ )[^ ]+)*(, g' of \[[\w.]+\])?", line
        ), line
    assert "gate layer 3: [3] <- [3.hidden], [3.gate], [2]" in lines
    assert ("loss layer 4: [loss.gradient] <- [4]" in lines) == training
    assert ("input layer 0: [0] <- X" in lines) == (dtype == "bfloat16") == any(line[:4] == "[0] " for line in lines)
    assert lines[-1]


@pytest.mark.parametrize("depth", [4, 40])
def test_explain_says_what_a_choice_was_made_of(depth):
    net, rows, threads = rc.models.resnet(64, 10, width=64, depth=depth), 1024, rc.get_num_threads()
    weights = sum(array.size for array in net.parameters().values())
    row_width = 64 * (depth - 1) + 10
    try:
        rc.set_num_threads(2)
        training, inference = (str(net.explain(t, batch=rows)).splitlines() for t in (True, False))
    finally:
        rc.set_num_threads(threads)
    assert training[1].startswith("a step on 1024 rows, on 2 threads: weight gradients by tile (")
    assert training[2] == "    tiles of 128 rows: 8, 4 for each thread"
    kept, passed = (float(re.search(r": ([\d.]+) MiB", line)[1]) for line in training[3:5])
    assert kept == pytest.approx(2 * rows * row_width * 4 / 2**20, rel=0.01)
    assert passed == pytest.approx(4 * weights * 4 / 2**20, rel=0.01)
    summed, coming_back = (float(number) for number in re.findall(r": ([\d.]+) MiB", training[5]))
    assert summed == pytest.approx(weights * 4 / 2**20, rel=0.01)
    reads = 64 * depth  # every layer reads one of that width
    assert coming_back == pytest.approx(3 * 512 * (3 * row_width + reads) / 4 * 4 / 2**20, rel=0.01)
    assert training[6].startswith("tiles of 128 rows (")
    assert inference[1] == "logits of 1024 rows, on 2 threads"
    # How many weights stay there is the machine's.
    assert re.fullmatch(
        r"tiles of \d+ rows \(the weights (stay in|are read once a tile).* second-level cache.*\)", inference[2]
    )


def test_explain_counts_in_english():
    threads = rc.get_num_threads()
    try:
        rc.set_num_threads(1)
        assert "\na step on 1 row, on 1 thread: " in str(small().explain(True, batch=1))
        rc.set_num_threads(2)
        assert "\na step on 30000 rows, on 2 threads: " in str(small().explain(True, batch=30000))
    finally:
        rc.set_num_threads(threads)


def test_diagnose(X):
    net = small()
    before = {**net.parameters(), **net.buffers()}
    diagnosis = net.diagnose(X, np.arange(9) % 3)
    assert diagnosis.gradient_norm.shape == diagnosis.skip_ratio.shape == diagnosis.dead.shape == (7,)
    gradients = net.gradients(X, np.arange(9) % 3)[1]
    norms = [np.linalg.norm(gradients[f"{n}.weight"].astype(np.float64)) for n in range(1, 8)]
    np.testing.assert_allclose(diagnosis.gradient_norm, norms, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(diagnosis.skip_ratio), [True, True, False, False, False, True, True])
    assert "skip / branch" in repr(diagnosis)
    after = {**net.parameters(), **net.buffers()}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_diagnose_measures_skips_against_branches():
    eye = np.eye(4, dtype=np.float32)
    for order in ({}, {"pre": True, "activation": None}):
        net = rc.Network(4, [rc.Layer(4, activation=None), rc.Layer(4, skips={2: "identity"}, **order)])
        net.set_parameters({"1.weight": 3 * eye, "2.weight": 2 * eye})
        diagnosis = net.diagnose(np.abs(np.random.default_rng(0).standard_normal((5, 4))), np.zeros(5, int))
        assert diagnosis.skip_ratio[1] == pytest.approx(1 / 6, rel=1e-5)


def test_diagnose_measures_the_norm_that_the_network_has(X):
    # Variances of the size of the norm's epsilon: another one would give another ratio.
    net = rc.Network(
        4, [rc.Layer(4, activation=None), rc.Layer(4, norm="batch", skips={2: "identity"})], dtype="float64"
    )
    net.set_parameters({"2.weight": 1e-3 * np.eye(4), "2.norm.weight": np.full(4, 2.0)})
    X = X.astype(np.float64)
    z = 1e-3 * X @ net.parameters()["1.weight"]
    branch = 2 * (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
    ratio = net.diagnose(X, np.arange(9) % 3).skip_ratio[1]
    assert ratio == pytest.approx(np.linalg.norm(X) / np.linalg.norm(branch), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((1, 4)), [0], "batch normalisation needs at least 2 rows"),
        (np.ones((0, 4)), [], "X must have at least one row"),
        (np.ones((2, 4)), [0, 3], "y must hold labels from 0 to 2"),
        (np.full((2, 4), np.inf), [0, 1], "the loss became nan"),
    ],
)
def test_diagnose_names_itself(x, y, words):
    with pytest.raises((ValueError, FloatingPointError), match=f"^diagnose: {words}"):
        small().diagnose(x, np.array(y, int))


def test_diagnose_sees_a_branch_that_starts_at_zero(X):
    net = rc.models.resnet(4, 3, 6, 6, norm="batch")
    diagnosis = net.diagnose(X, np.arange(9) % 3)
    assert np.isinf(diagnosis.skip_ratio[[2, 4]]).all()
    assert diagnosis.gradient_norm[-1] > 0


def test_diagnose_counts_dead_units(X):
    net = rc.Network(4, [rc.Layer(4), rc.Layer(3, activation=None)])
    net.set_parameters({"1.bias": np.array([-1e6, 1e6, -1e6, 1e6])})
    assert net.diagnose(X, np.arange(9) % 3).dead[0] == 0.5


def test_networks_know_their_shape():
    net = small()
    assert (net.inputs, net.outputs, len(net.layers), net.device, net.seed) == (4, 3, 7, "cpu", 0)
    assert repr(net) == "<Network 4 -> 3, 7 layers, float32>"


def test_layers_from_anything_that_can_be_iterated_over(X):
    layers = [rc.Layer(8), rc.Layer(8, skips={2: "learned"}), rc.Layer(3)]
    net = rc.Network(X.shape[1], (layer for layer in layers))
    assert net.layers == tuple(layers)
    assert "8" in str(net.summary())
    for bad in (rc.Layer(3), 3, None):
        with pytest.raises(rc.DTypeError, match="iterable of Layers"):
            rc.Network(4, bad)
    with pytest.raises(rc.DTypeError, match=r"Layer: width must be an int, got 2\.0"):
        rc.Network(4, (rc.Layer(width) for width in (8, 2.0)))


def test_a_layer_does_not_change():
    layer = rc.Layer(8, skips={2: "identity"})
    for change in (lambda s: s.update({3: "learned"}), lambda s: s.pop(2), lambda s: s.__setitem__(2, "learned")):
        with pytest.raises(TypeError, match="do not change"):
            change(layer.skips)
    for same in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), dataclasses.replace(layer)):
        assert same == layer and same.skips == {2: "identity"}
    layer = rc.Layer(8, skips={2: np.eye(8)})
    for same in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer), dataclasses.replace(layer)):
        assert same == layer and not same.skips[2].flags.writeable


def test_layers_tell_the_fixed_matrix_in_use(X):
    net, twin = small(), small()
    made_with, new = net.layers[4].skips[2], np.full((6, 6), 0.3)
    net.set_parameters(net.buffers())
    assert net.layers[4].skips[2] is made_with  # the same numbers, rounded to float32
    with pytest.raises(rc.ShapeError):
        net.set_parameters({"5.skip.2.weight": new, "1.bias": np.ones(5)})
    assert net.layers == twin.layers
    net.set_parameters({"5.skip.2.weight": new})
    new[:] = 7
    np.testing.assert_array_equal(net.layers[4].skips[2], net.buffers()["5.skip.2.weight"])
    assert net.layers[:4] == twin.layers[:4] and twin.layers[4].skips[2] is not net.layers[4].skips[2]
    np.testing.assert_array_equal(twin.layers[4].skips[2], made_with)
    assert not net.layers[4].skips[2].flags.writeable
    again = rc.Network(net.inputs, net.layers, dtype=net.dtype)
    again.set_parameters({**net.parameters(), **{n: b for n, b in net.buffers().items() if "skip" not in n}})
    np.testing.assert_array_equal(again(X), net(X))
    for other in (net.copy(), net.astype("float64"), pickle.loads(pickle.dumps(net))):
        assert other.layers == net.layers


def test_masked_elements_are_no_numbers(X):
    net = small()
    masked = np.ma.masked_array(X, mask=np.zeros(X.shape, bool))
    assert np.array_equal(net(masked), net(X))
    masked.mask[0, 0] = True
    with pytest.raises(ValueError, match="masked"):
        net(masked)
    matrix = np.ma.masked_array(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match=r"Layer: skips\[2\] has masked elements"):
        rc.Layer(3, skips={2: matrix})
    with pytest.raises(ValueError, match="class_weight has masked elements"):
        rc.Trainer(net, class_weight=matrix[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rc.Loss(label_smoothing="a"), rc.DTypeError, "label_smoothing must be a number"),
        (lambda: rc.Loss("huber", delta=None), rc.DTypeError, "delta must be a number"),
        (lambda: rc.Loss(class_weight={0: "a"}).class_weights(3), rc.DTypeError, "weight of class 0 must be a number"),
        (lambda: rc.Loss(class_weight=[[1], [1, 2], 3]).class_weights(3), rc.ShapeError, "class_weight must be rect"),
        (lambda: rc.Loss(class_weight=2).class_weights(3), rc.DTypeError, "class_weight must be an array, got int"),
        (lambda: rc.Layer(3, skips={2: [[1.0], [1.0, 2.0]]}), rc.ShapeError, r"skips\[2\] must be rectangular"),
        (lambda: rc.Layer(3, skips={2: object()}), rc.DTypeError, r"skips\[2\] must be an array.*or a matrix"),
        (lambda: rc.Layer(3, skips={2: np.eye(3, dtype=">f4")}), rc.DTypeError, r"skips\[2\] .*native byte order"),
        (lambda: rc.SGD(lr=np.array([0.1])), rc.DTypeError, "lr must be a number"),
        (lambda: rc.SGD(lr=np.array(True)), rc.DTypeError, "lr must be a number"),
        (lambda: rc.SGD(lr=np.complex128(1)), rc.DTypeError, "lr must be a number"),
        (lambda: rc.SGD(lr=10**400), ValueError, "lr must be finite"),
        (lambda: rc.SGD(lr=np.array([1.0, 2.0])), rc.DTypeError, "lr must be a number"),
        (lambda: rc.Trainer(small(), clip_norm=np.inf), ValueError, "clip_norm must be finite"),
        (lambda: rc.set_num_threads(2.0), rc.DTypeError, "threads must be an int"),
        (lambda: rc.set_num_threads(True), rc.DTypeError, "threads must be an int"),
        (lambda: rc.set_num_threads(10**20), ValueError, "from 1 to 1024"),
        (lambda: small().gradients(np.zeros((2, small().inputs)), [0, 1], step=-1), ValueError, "step must be from 0"),
        (lambda: rc.Trainer(small(), optimizer=rc.Adam(eps=1e-60)), ValueError, "eps must be above zero"),
    ],
)
def test_numbers_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numbers_of_other_libraries_become_floats():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert type(rc.SGD(lr=torch.tensor(0.5), momentum=np.float32(0.5)).momentum) is float
    assert rc.SGD(lr=torch.tensor(0.5)) == rc.SGD(lr=0.5)
    for bad in (torch.tensor([0.5]), torch.tensor(True), torch.tensor(0.5, device="meta"), torch.tensor(1j)):
        with pytest.raises(rc.DTypeError, match="lr must be a number"):
            rc.SGD(lr=bad)


def test_what_the_package_shows():
    assert {name for name in dir(rc) if not name.startswith("_")} == set(rc.__all__) - {"__version__"}


def test_probabilities_of_infinite_logits_warn_of_nothing():
    net = rc.Network(1, [rc.Layer(2, activation=None)])
    net.set_parameters({"1.weight": np.array([[1.0, -1.0]], "f4")})
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.array_equal(net.predict_proba(np.array([[1e30]], "f4")), [[1, 0]])
        assert np.isnan(net.predict_proba(np.array([[np.inf]], "f4"))).all()
    with pytest.raises(ValueError, match="finite"):
        net.predict_proba(np.array([[np.inf]], "f4"), check_finite=True)


@pytest.mark.parametrize("text", ["3", "3,2", " 3"])
def test_openmps_number_of_threads_is_taken(text):
    """Of a list, the first: it is for the outer of nested regions."""
    environment = {name: value for name, value in os.environ.items() if name != "RESNETCORE_NUM_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", "import resnetcore as rc; print(rc.get_num_threads())"],
        env={**environment, "OMP_NUM_THREADS": text},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "3\n", run.stderr


@pytest.mark.parametrize("text", ["abc", "2x", "0", "1025"])
def test_a_number_of_threads_that_is_none(text):
    run = subprocess.run(
        [sys.executable, "-c", "import resnetcore as rc; rc.get_num_threads()"],
        env={**os.environ, "RESNETCORE_NUM_THREADS": text},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0 and f'from 1 to 1024, got "{text}"' in run.stderr


@pytest.mark.parametrize(
    "arguments, error",
    [((True, 0), ValueError), ((True, 10**30), ValueError), ((True, "a"), rc.DTypeError), (("yes", 8), rc.DTypeError)],
)
def test_explain_refuses_what_it_cannot_count(arguments, error):
    with pytest.raises(error, match="explain"):
        small().explain(*arguments)


@pytest.mark.parametrize("name", ["batch_size", "accumulate"])
@pytest.mark.parametrize("value, error", [(0, ValueError), (10**25, ValueError), (2.0, rc.DTypeError)])
def test_a_trainers_counts_are_bounded(name, value, error):
    with pytest.raises(error, match=f"Trainer: {name}"):
        rc.Trainer(small(), **{"batch_size": 2**53, name: value})


def test_more_memory_than_there_is_names_what_takes_it():
    with pytest.raises(MemoryError, match="smaller network"):
        rc.Network(10**9, [rc.Layer(10**9)])


def test_matmul_precision(tmp_path, capsys):
    assert rc.get_matmul_precision() == "highest"
    plain = rc.models.resnet(4, 3, width=8, depth=4)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    for name, operands in {"high": ("float32", "bfloat16x2"), "medium": ("float32", "bfloat16")}.items():
        rc.set_matmul_precision(name)
        asked = rc.models.resnet(4, 3, width=8, depth=4)
        rc.set_matmul_precision("highest")
        told = plain.astype("float32", name)
        used = rc._core.available_precision(name)
        for net in (asked, told, asked.copy(), pickle.loads(pickle.dumps(asked)), told.astype("float32")):
            assert (net.matmul_precision, net.precision, net.dtype) == (name, "float32", np.float32)
            assert str(net.explain()).startswith("products of " + operands[used == name])
            assert np.array_equal(net(x), told(x))
        assert used == name or np.array_equal(told(x), plain(x))
        told.save(tmp_path / "net.safetensors")
        assert rc.load(tmp_path / "net.safetensors").matmul_precision == name
        rc.show_config()
        assert f"{name} runs" in capsys.readouterr().out
        # Other dtypes take no notice.
        assert str(plain.astype("float64", name).explain()).startswith("products of float64")
        assert str(plain.astype("bfloat16", name).explain()).startswith("products of bfloat16\n")
    for wrong in ("fast", None, 3):
        with pytest.raises(ValueError, match=r"set_matmul_precision.*highest.*high.*medium"):
            rc.set_matmul_precision(wrong)
    with pytest.raises(ValueError, match=r"Network: matmul_precision.*highest.*high.*medium"):
        rc.Network(4, [rc.Layer(3)], matmul_precision="fast")
    assert rc.get_matmul_precision() == "highest"


def test_public_modules_say_what_is_public():
    modules = [value for name in rc.__all__ if isinstance(value := getattr(rc, name), types.ModuleType)]
    assert len(modules) == 8
    for module in modules:
        for name in module.__all__:
            assert getattr(module, name).__module__ == module.__name__ and getattr(module, name).__doc__, name

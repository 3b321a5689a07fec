"""What is loaded is what was saved, to the bit; everything else is a CheckpointError before arrays are made."""

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resnetcore as rc
from resnetcore import safetensors
from resnetcore._topology_text import expected_shapes

NETWORK, TRAINER = "resnetcore.network", "resnetcore.trainer"
MATRIX = np.random.default_rng(3).normal(size=(5, 6))

NETWORKS = {
    "one layer": [rc.Layer(3, activation=None)],
    "identity skip": [rc.Layer(5), rc.Layer(5, skips={2: "identity"})],
    "learned skips": [rc.Layer(5), rc.Layer(3), rc.Layer(4, skips={2: "learned", 3: "learned"})],
    "fixed matrices": [rc.Layer(6), rc.Layer(6, skips={2: MATRIX}), rc.Layer(6, skips={2: "identity", 3: MATRIX})],
    "batch norm": [
        rc.Layer(5, norm="batch"),
        rc.Layer(5, norm="batch", norm_init=0.0, skips={2: "identity"}),
        rc.Layer(2),
    ],
    "pre-activation": [rc.Layer(4), rc.Layer(7, norm="batch", pre=True, skips={2: "learned"}), rc.Layer(3, pre=True)],
    "gates": [rc.Layer(5, gate=True, gate_bias=-1.0), rc.Layer(5, gate=True, norm="batch"), rc.Layer(3, bias=False)],
    "every setting": [
        rc.Layer(5, "tanh", {}, None, False, False, False, 0.25, 0.0, "glorot", 0.1),
        rc.Layer(5, "gelu", {2: "identity"}, "batch", True, False, False, 0.0, 0.3, "zero", 2.5, 1 / 3),
        rc.Layer(1, None, init="lecun"),
    ],
}
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrays_of(net):
    return {**net.parameters(), **net.buffers()}


def make_network(kind="batch norm", dtype="float32", seed=7):
    net = rc.Network(5, NETWORKS[kind], seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    net.set_parameters({name: rng.random(value.shape) + 0.1 for name, value in arrays_of(net).items()})
    return net


def make_trainer(optimizer=None, **settings):
    optimizer = optimizer or rc.AdamW(lr=0.01)
    trainer = rc.Trainer(make_network("batch norm"), "mse", optimizer, batch_size=4, seed=3, **settings)
    rng = np.random.default_rng(0)
    trainer.fit(rng.random((10, 5)), rng.random((10, 2)), epochs=2, progress=False)
    return trainer


def assert_same_network(got, expected):
    assert (got.inputs, got.dtype, got.seed) == (expected.inputs, expected.dtype, expected.seed)
    assert got.layers == expected.layers
    ours, theirs = arrays_of(got), arrays_of(expected)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    x = np.random.default_rng(1).normal(size=(9, expected.inputs))
    assert got.predict(x).tobytes() == expected.predict(x).tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_comes_back_to_the_bit(path, kind, dtype):
    net = make_network(kind, dtype)
    if kind == "fixed matrices":  # a fixed matrix is held in the network's dtype
        net = rc.Network(5, [rc.Layer(6), rc.Layer(6, skips={2: MATRIX.astype(dtype)})], seed=2**64 - 1, dtype=dtype)
    net.save(path)
    again = rc.load(path)
    assert_same_network(again, net)
    content = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == content


def test_fixed_matrices_that_were_replaced_come_back_replaced(path):
    net = make_network("fixed matrices")
    net.save(path)
    again = rc.load(path)
    expected = net.buffers()
    assert all((array == expected[name]).all() for name, array in again.buffers().items())
    assert (again.layers[1].skips[2] == expected["2.skip.2.weight"]).all()


def test_the_arrays_are_read_by_the_safetensors_package(path):
    package = pytest.importorskip("safetensors.numpy")
    net = make_network("gates")
    net.save(path)
    loaded = package.load_file(path)
    assert loaded.keys() == arrays_of(net).keys()
    assert all(loaded[name].tobytes() == array.tobytes() for name, array in arrays_of(net).items())


@st.composite
def topologies(draw):
    inputs, layers, widths = draw(st.integers(1, 4)), [], []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        before = [inputs, *widths]
        gate = draw(st.booleans())
        width = before[-1] if gate else draw(st.integers(1, 4))
        skips = {}
        for back in draw(st.sets(st.integers(2, number))) if number >= 2 else ():
            rows = before[number - back]
            kinds = ["learned", np.ones((rows, width)), *(["identity"] if rows == width else [])]
            skips[back] = kinds[draw(st.integers(0, len(kinds) - 1))]
        norm, bias, pre = draw(st.sampled_from([None, "batch"])), draw(st.booleans()), not gate and draw(st.booleans())
        layers.append(rc.Layer(width, norm=norm, bias=bias, pre=pre, gate=gate, skips=skips))
        widths.append(width)
    return inputs, layers


@quick
@given(topologies())
def test_the_expected_arrays_are_those_a_network_has(path, topology):
    inputs, layers = topology
    net = rc.Network(inputs, layers)
    assert expected_shapes(inputs, layers) == {name: array.shape for name, array in arrays_of(net).items()}
    net.save(path)
    assert_same_network(rc.load(path), net)


def rewrite(path, change_topology=None, change_arrays=None, key=NETWORK):
    arrays, metadata = safetensors.read(path)
    if change_topology:
        value = json.loads(metadata[key])
        value = change_topology(value) or value
        metadata[key] = value if isinstance(value, str) else json.dumps(value)
    if change_arrays:
        change_arrays(arrays)
    safetensors.write(path, arrays, metadata)


def set_layer(number, **changes):
    return lambda value: value["layers"][number].update(changes)


TOPOLOGIES = {
    "no JSON": lambda value: "{",
    "blank": lambda value: " ",
    "list": lambda value: "[]",
    "number": lambda value: "7",
    "nested 5000 deep": lambda value: "[" * 5000 + "]" * 5000,
    "objects nested 5000 deep": lambda value: '{"version":' * 5000,
    "number of a million digits": lambda value: '{"version":' + "1" * 10**6 + "}",
    "too long": lambda value: json.dumps(value) + " " * (1 << 25),
    "no version": lambda value: value.pop("version") and None,
    "newer version": lambda value: value.update(version=2),
    "version true": lambda value: value.update(version=True),
    "no inputs": lambda value: value.pop("inputs") and None,
    "further key": lambda value: value.update(more=1),
    "no layers": lambda value: value.update(layers=[]),
    "layers a number": lambda value: value.update(layers=3),
    "layers a text": lambda value: value.update(layers="abc"),
    "layer null": lambda value: value.update(layers=[None]),
    "million empty layers": lambda value: value.update(layers=[{}] * 10**6),
    "more layers than arrays": lambda value: value.update(layers=value["layers"] * 100),
    "inputs negative": lambda value: value.update(inputs=-5),
    "inputs zero": lambda value: value.update(inputs=0),
    "inputs huge": lambda value: value.update(inputs=2**62),
    "inputs beyond 2**64": lambda value: value.update(inputs=2**70),
    "inputs fractional": lambda value: value.update(inputs=5.0),
    "inputs true": lambda value: value.update(inputs=True),
    "seed negative": lambda value: value.update(seed=-1),
    "seed beyond 2**64": lambda value: value.update(seed=2**64),
    "seed a text": lambda value: value.update(seed="1"),
    "dtype unknown": lambda value: value.update(dtype="float16"),
    "dtype a list": lambda value: value.update(dtype=["float32"]),
    "dtype another": lambda value: value.update(dtype="float64"),
    "width negative": set_layer(0, width=-5),
    "width huge": set_layer(0, width=2**40),
    "width beyond 2**64": set_layer(0, width=10**30),
    "width a text": set_layer(0, width="5"),
    "width null": set_layer(0, width=None),
    "width other": set_layer(0, width=6),
    "activation unknown": set_layer(0, activation="relu6"),
    "activation a list": set_layer(0, activation=["relu"]),
    "norm unknown": set_layer(0, norm="layer"),
    "norm missing": set_layer(0, norm=None),
    "bias a number": set_layer(0, bias=1),
    "gate without arrays": set_layer(1, gate=True),
    "pre where there is none": set_layer(2, pre=True, norm="batch"),
    "dropout 1": set_layer(0, dropout=1.0),
    "dropout NaN": set_layer(0, dropout=float("nan")),
    "init_scale infinite": set_layer(0, init_scale=float("inf")),
    "init_scale of 400 digits": set_layer(0, init_scale=10**400),
    "init unknown": set_layer(0, init="xavier"),
    "unknown key": set_layer(0, momentum=0.1),
    "key left out": lambda value: value["layers"][0].pop("gate") and None,
    "skips a list": set_layer(1, skips=[2]),
    "skip before the input": set_layer(1, skips={"3": "identity"}),
    "skip far before the input": set_layer(1, skips={str(2**62): "identity"}),
    "skip to itself": set_layer(1, skips={"0": "identity"}),
    "skip forward": set_layer(1, skips={"-1": "identity"}),
    "skip of 1": set_layer(1, skips={"1": "identity"}),
    "skip no number": set_layer(1, skips={"two": "identity"}),
    "skip in another spelling": set_layer(1, skips={"02": "identity"}),
    "skip kind unknown": set_layer(1, skips={"2": "highway"}),
    "skip kind a matrix": set_layer(1, skips={"2": [[1.0]]}),
    "skip kind null": set_layer(1, skips={"2": None}),
    "skip learned without an array": set_layer(1, skips={"2": "learned"}),
    "skip fixed without an array": set_layer(1, skips={"2": "fixed"}),
    "identity of unequal widths": set_layer(2, skips={"2": "identity"}),
}


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_hostile_topologies_are_checkpoint_errors(path, kind):
    make_network("batch norm").save(path)
    rewrite(path, TOPOLOGIES[kind])
    with pytest.raises(rc.CheckpointError, match=r"net\.safetensors"):
        rc.load(path)


ARRAYS = {
    "missing": lambda arrays: arrays.pop("1.weight") is None,
    "missing buffer": lambda arrays: arrays.pop("1.norm.running_var") is None,
    "extra": lambda arrays: arrays.update({"9.weight": np.zeros(1, "f4")}),
    "extra of an optimizer": lambda arrays: arrays.update({"optimizer.step": np.zeros(1, "i8")}),
    "100,000 extra": lambda arrays: arrays.update({f"x{i}": np.zeros(1, "f4") for i in range(100_000)}),
    "transposed shape": lambda arrays: arrays.update({"3.weight": np.zeros((2, 5), "f4")}),
    "flat": lambda arrays: arrays.update({"1.weight": np.zeros(25, "f4")}),
    "one more dimension": lambda arrays: arrays.update({"1.norm.weight": np.zeros((1, 5), "f4")}),
    "empty": lambda arrays: arrays.update({"1.weight": np.zeros((0, 5), "f4")}),
    "half precision": lambda arrays: arrays.update({"1.weight": np.zeros((5, 5), "f2")}),
    "double precision": lambda arrays: arrays.update({"1.weight": np.zeros((5, 5), "f8")}),
    "integers": lambda arrays: arrays.update({"1.weight": np.zeros((5, 5), "i4")}),
}


VALUES = {
    "negative variance": ("batch norm", "1.norm.running_var", -1.0),
    "variance NaN": ("pre-activation", "2.norm.running_var", math.nan),
    "fixed matrix infinite": ("fixed matrices", "2.skip.2.weight", math.inf),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_no_network_has_are_checkpoint_errors(path, kind):
    network, name, value = VALUES[kind]
    make_network(network).save(path)
    rewrite(path, change_arrays=lambda arrays: arrays[name].__setitem__(-1, value))
    with pytest.raises(rc.CheckpointError, match=r"net\.safetensors.*(at least 0|must be finite)"):
        rc.load(path)


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_do_not_fit_are_checkpoint_errors(path, kind):
    make_network("batch norm").save(path)
    rewrite(path, change_arrays=ARRAYS[kind])
    reason = "does not know" if "extra" in kind else "lacks" if "missing" in kind else "must be F32"
    with pytest.raises(rc.CheckpointError, match=f"net[.]safetensors.*{reason}"):
        rc.load(path)


def test_a_file_without_a_topology_says_so(path):
    safetensors.write(path, {"1.weight": np.zeros((2, 2), np.float32)})
    for load in (rc.load, rc.Trainer.resume):
        with pytest.raises(rc.CheckpointError, match=r"Network\.save|Trainer\.save"):
            load(path)


def test_nothing_is_allocated_for_widths_the_file_does_not_hold(path):
    make_network("batch norm").save(path)
    rewrite(path, lambda value: [layer.update(width=30_000) for layer in value["layers"]] and None)
    tracemalloc.start()
    try:
        with pytest.raises(rc.CheckpointError, match=r"'1\.weight' must be F32"):
            rc.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_trainer_comes_back(path):
    trainer = make_trainer()
    trainer.save(path)
    again = rc.Trainer.resume(path)
    assert_same_network(again.net, trainer.net)
    assert (again.steps, again.position, again.lr) == (trainer.steps, trainer.position, trainer.lr)
    assert again.config() == trainer.config() and again.history.to_dict() == trainer.history.to_dict()
    content = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == content


def test_the_network_of_a_training_is_loaded_from_its_file(path):
    trainer = make_trainer()
    trainer.save(path)
    assert_same_network(rc.load(path), trainer.net)


def test_numbers_of_numpy_in_settings_are_saved(path):
    trainer = make_trainer(rc.SGD(lr=np.float32(0.1), momentum=np.float64(0.5)), clip_norm=np.float32(2))
    trainer.save(path)
    assert rc.Trainer.resume(path).optimizer == trainer.optimizer


def test_infinite_metrics_are_saved(path):
    trainer = make_trainer()
    for loss in (math.inf, -math.inf):
        trainer.history.append({"loss": loss})
    trainer.save(path)
    text = safetensors.read(path)[1][TRAINER]
    json.loads(text, parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    assert rc.Trainer.resume(path).history["loss"][-2:] == [math.inf, -math.inf]


def test_infinite_metrics_of_older_files_are_read(path):
    trainer = make_trainer()
    trainer.save(path)
    rewrite(path, lambda value: value["history"]["loss"].__setitem__(0, math.inf), key=TRAINER)
    assert ":[Infinity," in safetensors.read(path)[1][TRAINER].replace(" ", "")
    assert rc.Trainer.resume(path).history["loss"][0] == math.inf


def test_the_best_epoch_may_have_an_infinite_value(path):
    trainer = make_stopped_trainer()
    (key, best), *_ = trainer._best.items()
    trainer._best[key] = replace(best, value=-math.inf)
    trainer.save(path)
    assert rc.Trainer.resume(path)._best[key].value == -math.inf


def test_a_schedule_of_the_users_own_is_refused_and_the_old_file_kept(path):
    class Mine(rc.Schedule):
        pass

    trainer = make_trainer()
    trainer.save(path)
    content = path.read_bytes()
    trainer.schedule = Mine()
    with pytest.raises(ValueError, match="Mine"):
        trainer.save(path)
    assert path.read_bytes() == content


SETTINGS = {
    "nested 5000 deep": lambda value: "[" * 5000,
    "no position": lambda value: value.pop("position") and None,
    "epoch negative": lambda value: value["position"].update(epoch=-1),
    "epoch huge": lambda value: value["position"].update(epoch=2**64),
    "batch fractional": lambda value: value["position"].update(batch=0.5),
    "loss_sum a text": lambda value: value["position"].update(loss_sum="x"),
    "kind unknown": lambda value: value["position"].update(kind="files"),
    "total negative": lambda value: value["position"].update(total=-1),
    "total huge": lambda value: value["position"].update(total=2**64),
    "total a text": lambda value: value["position"].update(total="5"),
    "history uneven": lambda value: value["history"].update(loss=[1.0]),
    "history a list": lambda value: value.update(history=[1]),
    "history of texts": lambda value: value["history"].update(loss=["a", "b"]),
    "config empty": lambda value: value.update(config={}),
    "config with more": lambda value: value["config"].update(net=1),
    "loss unknown": lambda value: value["config"]["loss"].update(name="hinge"),
    "loss a number": lambda value: value["config"].update(loss=3),
    "class weights too many": lambda value: value["config"]["loss"].update(name="cross_entropy", class_weight=[1] * 99),
    "optimizer unknown": lambda value: value["config"]["optimizer"].update(name="Lion"),
    "optimizer with other arrays": lambda value: value["config"].update(optimizer={"name": "SGD", "lr": 0.1}),
    "lr negative": lambda value: value["config"]["optimizer"].update(lr=-0.1),
    "betas 2": lambda value: value["config"]["optimizer"].update(betas=[0.9, 2]),
    "schedule unknown": lambda value: value["config"].update(schedule={"name": "Spiral"}),
    "schedule name a list": lambda value: value["config"].update(schedule={"name": []}),
    "batch_size zero": lambda value: value["config"].update(batch_size=0),
    "accumulate huge": lambda value: value["config"].update(batch_size=2**70, accumulate=2**65),
    "clip_norm infinite": lambda value: value["config"].update(clip_norm=float("inf")),
    "seed negative": lambda value: value["config"].update(seed=-1),
}
STATES = {
    "no step": lambda arrays: arrays.pop("optimizer.step") is None,
    "step negative": lambda arrays: arrays.update({"optimizer.step": np.array([-1])}),
    "step at the end of its type": lambda arrays: arrays.update({"optimizer.step": np.array([2**63 - 1])}),
    "step of two": lambda arrays: arrays.update({"optimizer.step": np.array([1, 2])}),
    "step a float": lambda arrays: arrays.update({"optimizer.step": np.array([1.0])}),
    "missing": lambda arrays: arrays.pop("optimizer.1.weight.0") is None,
    "extra": lambda arrays: arrays.update({"optimizer.1.weight.2": np.zeros((5, 5), "f4")}),
    "of no parameter": lambda arrays: arrays.update({"optimizer.8.weight.0": np.zeros((5, 5), "f4")}),
    "of a buffer": lambda arrays: arrays.update({"optimizer.1.norm.running_var.0": np.zeros(5, "f4")}),
    "wrong shape": lambda arrays: arrays.update({"optimizer.1.weight.0": np.zeros((5, 6), "f4")}),
    "wrong dtype": lambda arrays: arrays.update({"optimizer.1.weight.0": np.zeros((5, 5), "f8")}),
}


BESTS = {
    "number of others": lambda value: value["best"][0].update(seen=9),
    "epoch of none": lambda value: value["best"][0].update(epoch=0),
    "waited negative": lambda value: value["best"][0].update(waited=-1),
    "value a text": lambda value: value["best"][0].update(value="low"),
    "mode unknown": lambda value: value["best"][0].update(mode="best"),
    "metric a number": lambda value: value["best"][0].update(metric=5),
    "restore a text": lambda value: value["best"][0].update(restore="yes"),
    "rule lacks": lambda value: value["best"][0].pop("min_delta") and None,
    "no rule": lambda value: value.update(best=[]),
    "a rule": lambda value: value.update(best=5),
    "rules of numbers": lambda value: value.update(best=[5]),
}
BEST_ARRAYS = {
    "missing": lambda arrays: arrays.pop("best.0.1.weight") is None,
    "wrong shape": lambda arrays: arrays.update({"best.0.1.weight": np.zeros((5, 6), "f4")}),
    "wrong dtype": lambda arrays: arrays.update({"best.0.1.weight": np.zeros((5, 5), "f8")}),
    "of no layer": lambda arrays: arrays.update({"best.0.9.weight": np.zeros((5, 5), "f4")}),
    "of no rule": lambda arrays: arrays.update({"best.7.1.weight": arrays["best.0.1.weight"]}),
    "variance negative": lambda arrays: arrays["best.0.1.norm.running_var"].__setitem__(0, -1),
    "of an optimizer": lambda arrays: arrays.update({"best.0.optimizer.step": np.zeros(1, "i8")}),
    "numbered otherwise": lambda arrays: arrays.update({"best.00.1.weight": arrays["best.0.1.weight"]}),
}


def make_stopped_trainer():
    trainer = make_trainer()
    X = np.random.default_rng(0).normal(size=(12, 5))
    y = np.zeros((12, trainer.net.outputs))
    stopping = rc.EarlyStopping(patience=9)
    trainer.fit(X, y, epochs=trainer.epoch + 2, validation=(X, y), callbacks=stopping, progress=False)
    assert stopping.best_epoch
    return trainer


@pytest.mark.parametrize("kind", [*BESTS, *BEST_ARRAYS])
def test_hostile_best_epochs_are_checkpoint_errors(path, kind):
    make_stopped_trainer().save(path)
    rewrite(path, BESTS.get(kind), BEST_ARRAYS.get(kind), key=TRAINER)
    with pytest.raises(rc.CheckpointError, match=r"net\.safetensors"):
        rc.Trainer.resume(path)


def test_best_epochs_come_back_and_networks_are_read_without_them(path):
    trainer = make_stopped_trainer()
    trainer.save(path)
    assert_same_network(rc.load(path), trainer.net)
    content = path.read_bytes()
    rc.Trainer.resume(path).save(path)
    assert path.read_bytes() == content


def test_files_of_before_best_epochs_were_kept_are_read(path):
    trainer = make_trainer()
    trainer.save(path)
    rewrite(path, lambda value: value.pop("best") and None, key=TRAINER)
    assert rc.Trainer.resume(path).history.to_dict() == trainer.history.to_dict()


@pytest.mark.parametrize("kind", [*SETTINGS, *STATES])
def test_hostile_trainings_are_checkpoint_errors(path, kind):
    make_trainer().save(path)
    rewrite(path, SETTINGS.get(kind), STATES.get(kind), key=TRAINER)
    with pytest.raises(rc.CheckpointError, match=r"net\.safetensors"):
        rc.Trainer.resume(path)


SPOILERS = [b'"', b"{", b"[", b",", b"-", b"0", b"1", b"9", b"e", b" ", b"\xff", b""]


@settings(quick, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_a_working_trainer(path, data):
    content = damaged_source(path)
    damaged = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header - 1))
        damaged[at : at + 1] = data.draw(st.sampled_from(SPOILERS))
    path.write_bytes(damaged)
    try:
        trainer = rc.Trainer.resume(path)
    except rc.CheckpointError:
        return
    trainer.net.predict(np.zeros((2, trainer.net.inputs)))
    trainer.save(path)


def damaged_source(path, made={}):  # noqa: B006  (trained once)
    if not made:
        make_trainer().save(path)
        made["content"] = path.read_bytes()
    return made["content"]

"""Every bad input of a network or a training gets its error, which names a remedy, and changes nothing."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core

ROWS = 12
X = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
Y = np.arange(ROWS) % 3


def make_net():
    return rc.models.resnet(4, 3, 8, 6, norm="batch", dropout=0.1, seed=2)


def make_trainer():
    """A trainer with a past: momentum, statistics, history."""
    trainer = rc.Trainer(make_net(), optimizer=rc.Adam(lr=0.01), batch_size=5, schedule=rc.schedules.Constant())
    trainer.fit(X, Y, epochs=2)
    return trainer


def everything(trainer):
    state = trainer.state()
    return {**trainer.net.parameters(), **trainer.net.buffers(), **state.pop("optimizer"), "rest": repr(state)}


@pytest.fixture
def unchanged():
    """A trainer whose whole state must be bit for bit the same afterwards, and which must still train."""
    trainer = make_trainer()
    before = everything(trainer)
    yield trainer
    after = everything(trainer)
    assert before.keys() == after.keys()
    for name in before:
        assert np.array_equal(before[name], after[name]), name
    trainer.fit(X, Y, epochs=3)


def swapped(dtype):
    return X.astype(np.dtype(dtype).newbyteorder())


BAD_X = {
    "one dimension": (X[0], rc.ShapeError, r"\(rows, 4\).*\(4,\).*None, :"),
    "three dimensions": (X[None], rc.ShapeError, r"\(rows, 4\)"),
    "no dimension": (np.float32(1), rc.ShapeError, r"\(rows, 4\)"),
    "other width": (X[:, :3], rc.ShapeError, r"\(rows, 4\), got \(12, 3\)"),
    "no width": (X[:, :0], rc.ShapeError, r"got \(12, 0\)"),
    "integers": (X.astype(int), rc.DTypeError, r"float32 or float64, got int64.*astype"),
    "complex": (X.astype(complex), rc.DTypeError, "complex128"),
    "half": (X.astype(np.float16), rc.DTypeError, "float16"),
    "booleans": (X > 0, rc.DTypeError, "bool"),
    "objects": (X.astype(object), rc.DTypeError, "numeric columns"),
    "strings": (X.astype(str), rc.DTypeError, "numeric columns"),
    "other byte order": (swapped("float32"), rc.DTypeError, "byte order"),
    "no array": (5, rc.DTypeError, "array"),
    "None": (None, rc.DTypeError, "array"),
    "text": ("text", rc.DTypeError, "array"),
    "ragged": ([[1.0, 2.0], [1.0]], rc.ShapeError, "rectangular"),
}

BAD_Y = {
    "fewer": (Y[:-1], rc.ShapeError, "12.*11"),
    "more": (np.append(Y, 0), rc.ShapeError, "12.*13"),
    "column": (Y[:, None], rc.ShapeError, r"\(12,\).*\(12, 1\)"),
    "one row": (Y[None], rc.ShapeError, "12"),
    "scalar": (np.int64(1), rc.ShapeError, "12"),
    "negative": (Y - 1, ValueError, "0 to 2, got -1 in row 0"),
    "too high": (Y + 1, ValueError, "0 to 2, got 3 in row 2"),
    "beyond 63 bits": (Y.astype(np.uint64) + np.uint64(2**63), ValueError, "0 to 2"),
    "zeros and a one": (np.eye(3, dtype=int)[Y], rc.ShapeError, r"y.argmax\(axis=1\)"),
    "floats": (Y.astype(float), rc.DTypeError, "integer labels"),
    "class names": (np.array(list("abc"))[Y], rc.DTypeError, "return_inverse"),
    "objects": (np.array(list("abc"), object)[Y], rc.DTypeError, "return_inverse"),
    "complex": (Y.astype(complex), rc.DTypeError, "complex"),
    "probabilities of too many": (np.full((12, 4), 0.25), rc.ShapeError, r"\(12, 3\).*never broadcast.*\(12, 4\)"),
    "probabilities above one": (np.full((12, 3), 1.5), ValueError, r"\[0, 1\]"),
    "probabilities of NaN": (np.full((12, 3), np.nan), ValueError, r"\[0, 1\]"),
    "other byte order": (Y.astype(np.dtype(int).newbyteorder()), rc.DTypeError, "byte order"),
}

BAD_WEIGHT = {
    "fewer": (np.ones(11), rc.ShapeError, r"\(12,\)"),
    "column": (np.ones((12, 1)), rc.ShapeError, r"\(12,\)"),
    "negative": (-np.ones(12), ValueError, "not negative"),
    "NaN": (np.full(12, np.nan), ValueError, "finite"),
    "all zero": (np.zeros(12), ValueError, "above 0"),
    "strings": (np.full(12, "1"), rc.DTypeError, "numbers"),
}


def cases(table):
    return pytest.mark.parametrize("value, error, words", table.values(), ids=table.keys())


CALLS = {
    "fit": lambda t, x, y, w=None: t.fit(x, y, epochs=9, sample_weight=w),
    "validation": lambda t, x, y, w=None: t.fit(X, Y, epochs=9, validation=(x, y, w)),
    "step": lambda t, x, y, w=None: t.step(x, y, w),
    "evaluate": lambda t, x, y, w=None: t.evaluate(x, y, w),
    "gradients": lambda t, x, y, w=None: t.net.gradients(x, y, sample_weight=w),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@calls
@cases(BAD_X)
def test_bad_rows(unchanged, call, value, error, words):
    with pytest.raises(error, match=words):
        call(unchanged, value, Y)


@calls
@cases(BAD_Y)
def test_bad_targets(unchanged, call, value, error, words):
    with pytest.raises(error, match=words):
        call(unchanged, X, value)


@calls
@cases(BAD_WEIGHT)
def test_bad_sample_weights(unchanged, call, value, error, words):
    with pytest.raises(error, match=words):
        call(unchanged, X, Y, value)


@pytest.mark.parametrize("scale", [1e40, 1e300, 1e-60])
@pytest.mark.parametrize("call", ["fit", "validation", "step", "evaluate", "batches"])
def test_sample_weights_beyond_the_networks_dtype(unchanged, call, scale):
    """Infinite, or all of them 0, where float32 has them; a float64 network takes their ratios."""
    weight = scale * np.linspace(0.5, 1, ROWS)
    calls = {**CALLS, "batches": lambda t, x, y, w: t.fit([(x, y, w)], epochs=9)}
    with pytest.raises(ValueError, match=r"sample_weight must have its largest.*float32"):
        calls[call](unchanged, X, Y, weight)
    with pytest.raises(ValueError, match=r"gradients: sample_weight must have its largest.*float32"):
        unchanged.net.gradients(X, Y, sample_weight=weight)
    wide = rc.Trainer(make_net().astype("float64"))
    assert wide.evaluate(X, Y, weight) == pytest.approx(wide.evaluate(X, Y, weight / scale))


@cases(BAD_X)
def test_bad_rows_to_predict(unchanged, value, error, words):
    for call in (unchanged.net.predict, unchanged.net.predict_proba, unchanged.net):
        with pytest.raises(error, match=words):
            call(value)


@calls
def test_no_rows(unchanged, call):
    with pytest.raises(rc.ShapeError, match="at least one row"):
        call(unchanged, X[:0], Y[:0])


def test_no_rows_to_predict(unchanged):
    assert unchanged.net.predict(X[:0]).shape == (0, 3)


def test_one_row_is_too_few_for_batch_statistics(unchanged):
    with pytest.raises(rc.ShapeError, match="2 rows"):
        unchanged.step(X[:1], Y[:1])
    with pytest.raises(rc.ShapeError, match="2 rows"):
        unchanged.fit(X[:1], Y[:1], epochs=9)


def test_targets_never_broadcast():
    trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 6), "mse", rc.SGD(lr=0.1))
    before = everything(trainer)
    for bad in (np.zeros(ROWS), np.zeros((ROWS, 1)), np.zeros((1, 2)), np.zeros((ROWS, 2, 1))):
        with pytest.raises(rc.ShapeError):
            trainer.step(X, bad)
        with pytest.raises(rc.ShapeError):
            trainer.fit(X, bad)
    assert str(before) == str(everything(trainer))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(unchanged, bad):
    x = X.copy()
    x[3, 2] = bad
    with pytest.raises(FloatingPointError, match=r"at step 7.*input.*leave such rows out, or fill them in"):
        unchanged.step(x, Y)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_target_that_is_not_finite(bad):
    """No layer is to blame, nor the learning rate."""
    y = X[:, :3].copy()
    y[3, 2] = bad
    with pytest.raises(FloatingPointError, match=r"look for NaN and infinity in y"):
        rc.Trainer(make_net(), loss="mse").step(X, y)


def test_fit_keeps_the_weights_of_before_the_bad_step():
    """Batches in the iterable's order: two good ones, then a bad one."""
    bad = X.copy()
    bad[0, 0] = np.nan
    broken, good = make_trainer(), make_trainer()
    with pytest.raises(FloatingPointError):
        broken.fit([(X, Y), (X, Y), (bad, Y)], epochs=3)
    for _ in range(2):
        good.step(X, Y)
    assert broken.steps == good.steps
    mine, expected = broken.net.parameters(), good.net.parameters()
    assert all(np.array_equal(mine[name], expected[name]) for name in mine)
    broken.restart_epoch()
    broken.fit(X, Y, epochs=3)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": -1}, ValueError),
        ({"epochs": 2.5}, rc.DTypeError),
        ({"epochs": True}, rc.DTypeError),
        ({"epochs": 9, "validation": (X,)}, rc.DTypeError),
        ({"epochs": 9, "validation": 5}, rc.DTypeError),
        ({"epochs": 9, "validation": [X, Y[:-1]]}, rc.ShapeError),
        ({"epochs": 9, "validation": [X, Y, -np.ones(ROWS)]}, ValueError),
        ({"epochs": 9, "validation": []}, ValueError),
        ({"epochs": 9, "validation": [(X, Y), (X, Y + 1)]}, ValueError),
        ({"epochs": 9, "validation": [X, Y, None, None]}, rc.DTypeError),
        ({"epochs": 9, "callbacks": [print]}, rc.DTypeError),
        ({"epochs": 9, "callbacks": rc.EarlyStopping}, rc.DTypeError),
        ({"epochs": 9, "progress": "no"}, rc.DTypeError),
        ({"epochs": 9, "progress": 1}, rc.DTypeError),
    ],
)
def test_bad_arguments_of_fit(unchanged, arguments, error):
    with pytest.raises(error):
        unchanged.fit(X, Y, **arguments)


def test_validation_may_be_a_list_and_callbacks_none():
    one, other = make_trainer(), make_trainer()
    one.fit(X, Y, epochs=3, validation=(X, Y, np.ones(ROWS)))
    other.fit(X, Y, epochs=3, validation=[X, Y, np.ones(ROWS)], callbacks=None)
    assert one.history.to_dict() == other.history.to_dict()


def test_a_validation_that_gives_nothing_is_named():
    class Empty:
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="fit: validation: there must be at least one row"):
        make_trainer().fit(X, Y, epochs=3, validation=Empty())


@pytest.mark.parametrize("lr", [0, -0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("optimizer", [rc.SGD, rc.Adam, rc.AdamW])
def test_learning_rates(optimizer, lr):
    with pytest.raises(ValueError, match="lr"):
        optimizer(lr=lr)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: rc.SGD(momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: rc.SGD(momentum=-0.1), "momentum"),
        (lambda: rc.SGD(momentum=math.nan), "momentum"),
        (lambda: rc.SGD(nesterov=True), "needs a momentum"),
        (lambda: rc.SGD(weight_decay=-1e-4), "weight_decay"),
        (lambda: rc.SGD(weight_decay=math.inf), "weight_decay"),
        (lambda: rc.SGD(decay="biases"), "'all' or 'weights'"),
        (lambda: rc.Adam(betas=(1.0, 0.999)), r"betas\[0\]"),
        (lambda: rc.Adam(betas=(0.9, -0.1)), r"betas\[1\]"),
        (lambda: rc.Adam(betas=(0.9, math.nan)), r"betas\[1\]"),
        (lambda: rc.Adam(eps=0), "eps"),
        (lambda: rc.AdamW(eps=-1e-8), "eps"),
        (lambda: rc.AdamW(eps=math.inf), "eps"),
    ],
)
def test_numbers_of_optimizers(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: rc.SGD(lr="0.1"),
        lambda: rc.SGD(lr=None),
        lambda: rc.SGD(lr=True),
        lambda: rc.SGD(nesterov=1),
        lambda: rc.Adam(betas=0.9),
        lambda: rc.Trainer(make_net(), optimizer=0.1),
        lambda: rc.Trainer("net"),
        lambda: rc.Trainer(make_net(), batch_size=2.0),
        lambda: rc.Trainer(make_net(), clip_norm="1"),
        lambda: rc.Trainer(make_net(), loss=3),
        lambda: rc.Trainer(make_net(), seed=0.5),
    ],
)
def test_types_of_settings(make):
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"loss": "cross-entropy"}, "cross-entropy.*cross_entropy"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulate": 0}, "accumulate"),
        ({"batch_size": 4, "accumulate": 5}, "accumulate"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"clip_norm": math.nan}, "clip_norm"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": math.nan}, "label_smoothing"),
        ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing"),
        ({"loss": "mse", "class_weight": [1, 1, 1]}, "class_weight"),
        ({"class_weight": [1, 1]}, "class_weight"),
        ({"class_weight": [1, 1, -1]}, "class_weight"),
        ({"class_weight": [1, 1, math.nan]}, "class_weight"),
        ({"class_weight": {3: 1.0}}, "0 to 2"),
        ({"class_weight": [1, 1, 1e39]}, r"class_weight must have its largest.*network's float32, got 1e\+39"),
        ({"class_weight": [0, 1e-60, 0]}, r"class_weight must have its largest.*network's float32, got 1e-60"),
    ],
)
def test_settings_of_a_trainer(settings, words):
    net = make_net()
    before = net.parameters()
    with pytest.raises(ValueError, match=words):
        rc.Trainer(net, **settings)
    assert all(np.array_equal(before[name], value) for name, value in net.parameters().items())


def without(value, *path):
    """A deep copy of dicts, less one name."""
    return {
        key: without(inner, *path[1:]) if key == path[0] and path[1:] else inner
        for key, inner in value.items()
        if key != path[0] or path[1:]
    }


def test_a_state_or_settings_that_lack_something(unchanged):
    state, config = unchanged.state(), unchanged.config()
    for path in (["position"], ["history"], ["optimizer"], ["position", "rows"], ["optimizer", "optimizer.step"]):
        with pytest.raises(ValueError, match=rf"set_state: .*{path[-1]}"):
            unchanged.set_state(without(state, *path))
    for path in (["loss"], ["seed"], ["loss", "name"], ["optimizer", "name"], ["schedule", "name"]):
        with pytest.raises(ValueError, match=rf"from_config: .* lacks .*{path[-1]}"):
            rc.Trainer.from_config(unchanged.net, without(config, *path))
    for call in (unchanged.set_state, lambda value: rc.Trainer.from_config(unchanged.net, value)):
        with pytest.raises(ValueError, match="lacks"):
            call({})
        with pytest.raises(rc.DTypeError, match="must be a dict"):
            call(None)
    with pytest.raises(ValueError, match="unknown names speed; known are loss"):
        rc.Trainer.from_config(unchanged.net, {**config, "speed": 1})
    with pytest.raises(rc.DTypeError, match="history must be a dict"):
        unchanged.set_state({**state, "history": [1]})


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_trainer_is_not_copied(unchanged, duplicate):
    with pytest.raises(rc.DTypeError, match=r"trainer\.save.*Trainer\.resume"):
        duplicate(unchanged)
    duplicate(unchanged.net)


def test_a_state_that_belongs_to_another_network(unchanged):
    other = rc.Trainer(rc.models.resnet(4, 3, 9, 6, norm="batch"), optimizer=rc.Adam())
    plain = rc.Trainer(make_net(), optimizer=rc.SGD(lr=0.1))
    good = unchanged.state()
    bad_states = [
        other.state(),
        plain.state(),
        {**good, "position": {**good["position"], "batch": -1}},
        {**good, "history": {"loss": [1.0], "lr": []}},
        {**good, "optimizer": {**good["optimizer"], "nonsense": np.zeros(3)}},
    ]
    for state in bad_states:
        with pytest.raises(ValueError):
            unchanged.set_state(state)


@pytest.mark.parametrize(
    "layers, error, words",
    [
        ([], ValueError, "at least one layer"),
        ([(8, {}), (6, {}), (6, {2: "identity"})], rc.ShapeError, "layer 1 of width 8.*layer 3 of width 6.*learned"),
        ([(4, {}), (4, {3: "learned"})], ValueError, "layer 2.*before the input"),
        ([(4, {}), (4, {2: np.ones((3, 4))})], rc.ShapeError, r"\(4, 4\).*\(3, 4\)"),
    ],
)
def test_layers_that_do_not_fit_together(layers, error, words):
    with pytest.raises(error, match=words):
        rc.Network(4, [rc.Layer(width, skips=skips) for width, skips in layers])


def test_gates_need_equal_widths():
    with pytest.raises(rc.ShapeError, match=r"layer 1.*layer|layer 2.*layer"):
        rc.Network(4, [rc.Layer(5), rc.Layer(6, gate=True)])


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"width": 0}, rc.ShapeError, "at least 1"),
        ({"width": -3}, rc.ShapeError, "at least 1"),
        ({"width": True}, rc.DTypeError, "int"),
        ({"width": 4.0}, rc.DTypeError, "int"),
        ({"width": "4"}, rc.DTypeError, "int"),
        ({"activation": "rellu"}, ValueError, "relu, .*tanh"),
        ({"activation": 1}, rc.DTypeError, "name"),
        ({"norm": "layer"}, ValueError, "batch"),
        ({"init": "random"}, ValueError, "he, glorot, lecun, zero"),
        ({"skips": {1: "identity"}}, ValueError, "from 2"),
        ({"skips": {0: "learned"}}, ValueError, "from 2"),
        ({"skips": {-2: "learned"}}, ValueError, "from 2"),
        ({"skips": {True: "learned"}}, rc.DTypeError, "int"),
        ({"skips": {2.0: "learned"}}, rc.DTypeError, "int"),
        ({"skips": {"2": "learned"}}, rc.DTypeError, "int"),
        ({"skips": {2: "fixed"}}, ValueError, "'identity', 'learned' or a matrix"),
        ({"skips": {2: None}}, rc.DTypeError, "matrix"),
        ({"skips": {2: np.ones((4, 4), int)}}, rc.DTypeError, "floats"),
        ({"skips": {2: np.ones(4)}}, rc.ShapeError, "2 dimensions"),
        ({"skips": {2: np.full((4, 4), np.nan)}}, ValueError, r"skips\[2\].*finite"),
        ({"skips": ["identity"]}, rc.DTypeError, "dict"),
        ({"dropout": 1.0}, ValueError, r"\[0, 1\)"),
        ({"dropout": -0.1}, ValueError, r"\[0, 1\)"),
        ({"dropout": math.nan}, ValueError, "finite"),
        ({"branch_dropout": 1.5}, ValueError, r"\[0, 1\)"),
        ({"dropout": "half"}, rc.DTypeError, "number"),
        ({"init_scale": math.inf}, ValueError, "finite"),
        ({"bias": 1}, rc.DTypeError, "True or False"),
        ({"gate": True, "pre": True}, ValueError, "choose one"),
    ],
)
def test_bad_layers(arguments, error, words):
    with pytest.raises(error, match=words):
        rc.Layer(**{"width": 4, **arguments})


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"inputs": 0}, rc.ShapeError),
        ({"inputs": True}, rc.DTypeError),
        ({"inputs": 2**64}, (rc.ShapeError, OverflowError)),
        ({"layers": [8]}, rc.DTypeError),
        ({"seed": -1}, ValueError),
        ({"seed": None}, rc.DTypeError),
        ({"dtype": "int8"}, rc.DTypeError),
        ({"dtype": None}, rc.DTypeError),
        ({"dtype": "float16"}, rc.BuildFeatureError),
        ({"layers": [rc.Layer(4), rc.Layer(4, skips={2: np.full((4, 4), 1e39)})]}, ValueError),
        ({"layers": [rc.Layer(4, norm="batch", norm_init=-1e39)]}, ValueError),
        ({"device": "cuda:99"}, rc.DeviceError),
        ({"device": "tpu"}, rc.DeviceError),
    ],
)
def test_bad_networks(arguments, error):
    with pytest.raises(error):
        rc.Network(**{"inputs": 4, "layers": [rc.Layer(4)], **arguments})


def test_a_network_larger_than_memory():
    with pytest.raises((MemoryError, rc.ShapeError)):
        rc.Network(2**31, [rc.Layer(2**31)])
    assert make_net().predict(X).shape == (ROWS, 3)


def test_check_finite():
    for bad in (np.nan, np.inf):
        x, targets = X.copy(), np.zeros((ROWS, 3), "float32")
        x[3, 1] = targets[5, 2] = bad
        for loss, arguments in [("cross_entropy", (x, Y)), ("mse", (X, targets))]:
            net = rc.models.plain(4, 3, 8, 2)
            trainer = rc.Trainer(net, loss=loss)
            before = net.parameters()
            for call in (
                lambda t=trainer, a=arguments: t.step(*a, check_finite=True),
                lambda t=trainer, a=arguments: t.fit(*a, check_finite=True),
                lambda t=trainer, a=arguments: t.fit([a], check_finite=True),
            ):
                with pytest.raises(ValueError, match=r"check_finite=True.*1 rows"):
                    call()
            assert trainer.steps == 0
            assert all(np.array_equal(before[name], a) for name, a in net.parameters().items())


HUGE = X + 1e300 * np.eye(ROWS, 4)  # beyond float32
SIGNALLING = X.astype(np.float64)
SIGNALLING.view(np.uint64)[3, 1] = 0x7FF0000000000001


@pytest.mark.parametrize("bad", [HUGE, SIGNALLING], ids=["beyond float32", "signalling NaN"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conversions_warn_of_nothing(bad, dtype):
    # pytest makes errors of warnings.
    net = rc.models.plain(4, 2, 8, 3, dtype=dtype)
    for predict in (net.predict, net.predict_proba):
        assert not np.isfinite(predict(bad)).all()
        with pytest.raises(ValueError, match=r"finite in float32 \(check_finite=True\)"):
            predict(bad, check_finite=True)
    trainer = rc.Trainer(net, "mse")
    good, targets = X.astype(np.float32), X[:, :2].astype(np.float64)
    assert not math.isfinite(trainer.evaluate(bad, targets)["rmse"])
    assert not math.isfinite(trainer.evaluate(X, bad[:, :2])["rmse"])
    for x, y in [(bad, targets), (good, bad[:, :2])]:
        for call in (trainer.step, trainer.fit, lambda x, y: trainer.fit([(x, y)])):
            with pytest.raises(FloatingPointError, match="the loss became"):
                call(x, y)
        for fit in (trainer.step, trainer.fit):
            with pytest.raises(ValueError, match="finite in float32"):
                fit(x, y, check_finite=True)
        with pytest.raises(FloatingPointError, match="the loss became"):
            net.gradients(x, y, "mse")
    with pytest.raises(ValueError, match="x must be finite in float32"):
        net.gradients(bad, targets, "mse", check_finite=True)


def test_metrics_beyond_float64_are_infinite():
    net = rc.models.plain(4, 2, 8, 3, dtype="float64")
    assert rc.Trainer(net, "mse").evaluate(X, np.full((ROWS, 2), 1e300))["rmse"] == math.inf
    net.set_parameters({"3.weight": np.full((8, 2), 1e300)})
    assert net.diagnose(X, Y % 2).activation_norm[-1] == math.inf


@pytest.mark.parametrize("name", ["1.weight", "1.norm.running_var", "6.bias"])
def test_parameters_beyond_the_networks_dtype(unchanged, name):
    net = unchanged.net
    shape = {**net.parameters(), **net.buffers()}[name].shape
    with pytest.raises(ValueError, match=f"set_parameters: '{name}' .*beyond the range of float32"):
        net.set_parameters({"2.weight": np.zeros((8, 8)), name: np.full(shape, 1e39)})


@pytest.mark.parametrize("bad", [-1e-30, math.nan])
def test_running_variances_that_are_none(unchanged, bad):
    net = unchanged.net
    name = next(name for name in net.buffers() if name.endswith("running_var"))
    variance = np.where(np.arange(8) == 5, bad, 1.0)
    with pytest.raises(ValueError, match=f"set_parameters: '{name}', a variance, must be at least 0, got"):
        net.set_parameters({"1.bias": np.zeros(8), name: variance})


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_matrices_of_fixed_skips_are_finite(bad):
    net = rc.Network(4, [rc.Layer(4), rc.Layer(4, skips={2: np.eye(4)}), rc.Layer(4, skips={2: "learned"})])
    before = {**net.parameters(), **net.buffers()}
    with pytest.raises(ValueError, match=r"'2\.skip\.2\.weight', the matrix of a fixed skip, must be finite"):
        net.set_parameters({"1.weight": np.zeros((4, 4)), "2.skip.2.weight": np.full((4, 4), bad)})
    after = {**net.parameters(), **net.buffers()}
    assert all((before[name] == after[name]).all() for name in before)
    # A trained weight may be anything: it shows in the loss.
    net.set_parameters({"3.skip.2.weight": np.full((4, 4), bad)})


def test_integer_targets_of_a_regression():
    targets = np.arange(ROWS * 3).reshape(ROWS, 3) % 5
    losses = []
    for y in (targets, targets.astype("float32")):
        trainer = rc.Trainer(rc.models.plain(4, 3, 8, 2), loss="mse", seed=1)
        losses.append((trainer.step(X, y), trainer.fit(X, y, epochs=1)["loss"]))
    assert losses[0] == losses[1]


def all_finite(net):
    return all(np.isfinite(a).all() for a in net.parameters().values())


@pytest.mark.parametrize("strategy", ["by_layer", "by_tile"])
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (rc.SGD(lr=1e30, momentum=0.0), {}),
        (rc.SGD(lr=1e25, momentum=0.9), {"clip_norm": 1e20}),
        (rc.Adam(lr=1e38), {"accumulate": 2}),
        (rc.AdamW(lr=3e38), {}),
    ],
    ids=str,
)
def test_an_update_that_overflows_is_undone(optimizer, settings, strategy):
    """The loss is finite, the weights after the step would not be."""
    rng = np.random.default_rng(0)
    x, y = 1e8 * rng.standard_normal((300, 7)).astype("float32"), rng.standard_normal((300, 1)).astype("float32")
    net = rc.models.plain(7, 1, 16, 6, norm="batch", seed=3)
    trainer = rc.Trainer(net, loss="mae", optimizer=optimizer, **settings)
    _core.set_strategy(strategy)
    try:
        with pytest.raises(FloatingPointError, match=r"NaN or infin|nan|inf"):
            for _ in range(50):
                before = {**net.parameters(), **net.buffers()}
                steps = trainer.steps
                trainer.step(x, y)
    finally:
        _core.set_strategy("auto")
    after = {**net.parameters(), **net.buffers()}
    assert all_finite(net)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert trainer.steps == steps
    assert np.array_equal(net(x), net.copy()(x), equal_nan=True)


@pytest.mark.parametrize("decay", [1e39, 1e300, 100.0], ids=str)  # beyond float32; growing slowly
@pytest.mark.parametrize(
    "optimizer",
    [rc.SGD(lr=0.1), rc.SGD(lr=0.1, momentum=0.9), rc.SGD(lr=0.1, momentum=0.9, nesterov=True), rc.AdamW(lr=0.1)],
    ids=lambda one: f"{type(one).__name__}-{getattr(one, 'momentum', 0)}-{getattr(one, 'nesterov', False)}",
)
def test_a_weight_decay_that_overflows_is_undone(optimizer, decay):
    """Decay alone makes weights infinite, where no gradient is large."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 4)).astype("float32"), rng.integers(0, 3, 50)
    net = rc.Network(4, [rc.Layer(3, activation=None)])
    trainer = rc.Trainer(net, optimizer=replace(optimizer, weight_decay=decay))
    with pytest.raises(FloatingPointError, match="weight_decay"):
        for _ in range(100):
            before = trainer.state()["optimizer"] | net.parameters()
            trainer.step(x, y)
    after = trainer.state()["optimizer"] | net.parameters()
    assert all(np.isfinite(array).all() and np.array_equal(array, before[name]) for name, array in after.items())


def test_decay_of_more_than_the_weight_trains():
    """The careful way is the same step."""
    x, y = np.ones((8, 3)), np.zeros((8, 2))
    net = rc.Network(3, [rc.Layer(2, activation=None, bias=False)], dtype="float64", seed=1)
    w = net.parameters()["1.weight"]
    rc.Trainer(net, loss="mse", optimizer=rc.SGD(lr=0.5, weight_decay=4.0)).step(x, y)
    gradient = x.T @ (2 * (x @ w - y) / y.size)
    np.testing.assert_allclose(net.parameters()["1.weight"], w - 0.5 * (gradient + 4 * w), rtol=1e-12)


def test_large_numbers_that_do_not_overflow_train():
    """The careful way is the same step."""
    rng = np.random.default_rng(0)
    x, y = 1e9 * rng.standard_normal((40, 5)), 1e9 * rng.standard_normal((40, 2))
    net = rc.Network(5, [rc.Layer(2, activation=None, bias=False)], dtype="float64", seed=1)
    w = net.parameters()["1.weight"]
    rc.Trainer(net, loss="mse", optimizer=rc.SGD(lr=1e-20, momentum=0.0)).step(x, y)
    expected = w - 1e-20 * x.T @ (2 * (x @ w - y) / y.size)
    np.testing.assert_allclose(net.parameters()["1.weight"], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_without_weight_changes_nothing(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 5)).astype(dtype), np.zeros(8, int)
    net = rc.models.plain(5, 3, 8, 3, dtype=dtype)
    before = net.parameters()
    trainer = rc.Trainer(net, loss=rc.Loss("cross_entropy", class_weight=[0, 1, 1]), optimizer=rc.SGD(lr=0.1))
    assert trainer.step(x, y) == 0.0
    assert all(np.array_equal(a, before[name]) for name, a in net.parameters().items())
    history = rc.Trainer(net, batch_size=2).fit(x, y, epochs=1, sample_weight=[1, 0, 0, 0, 0, 0, 0, 0])
    assert np.isfinite(history["loss"][0])


def test_labels_are_judged_alike_through_every_door():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):  # the first goes to the core at once
        x = rng.standard_normal((4, 5)).astype(dtype)
        net = rc.models.plain(5, 2, 8, 3)
        rc.Trainer(net).step(x, np.array([True, False, True, True]))
        with pytest.raises(ValueError, match="18446744073709551615 in row 1"):
            rc.Trainer(net).step(x, np.array([1, 2**64 - 1, 0, 1], "uint64"))
        with pytest.raises(rc.ShapeError, match="two outputs or more"):
            rc.Trainer(rc.models.plain(5, 1, 8, 3), loss="cross_entropy").step(x, np.zeros(4, int))


@pytest.mark.parametrize(
    "rows, settings", [(ROWS, {"batch_size": 1}), (1, {}), (ROWS, {"batch_size": 5, "accumulate": 3})]
)
def test_too_few_rows_for_batch_statistics_are_found_before_the_first_step(rows, settings):
    class Begun(rc.Callback):
        def on_fit_begin(self, trainer, plan):
            pytest.fail("a callback was told of a fit that cannot begin")

    trainer = rc.Trainer(make_net(), **settings)
    with pytest.raises(rc.ShapeError, match=r"fit: batch normalisation needs at least 2 rows .*, got 1; give more"):
        trainer.fit(X[:rows], Y[:rows], callbacks=Begun())
    with pytest.raises(rc.ShapeError, match="fit: accumulate=4 cuts every batch into as many parts; one has 3 rows"):
        rc.Trainer(rc.models.plain(4, 3, 8, 3), accumulate=4).fit(X[:3], Y[:3])

"""Callbacks are called where they say, and what they write is the same for a resumed run."""

import csv
import io
import json

import numpy as np
import pytest

import resnetcore as rc


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int)


def make(lr=0.1):
    return rc.Trainer(rc.models.resnet(4, 2, 8, 4), optimizer=rc.SGD(lr=lr), batch_size=16)


class Recorder(rc.Callback):
    def __init__(self):
        self.calls = []

    def on_fit_begin(self, trainer, plan):
        self.calls.append(("begin", plan.epochs, plan.steps_per_epoch, plan.rows_per_epoch, plan.metrics))

    def on_step_end(self, trainer, loss):
        self.calls.append(("step", trainer.steps))

    def on_epoch_end(self, trainer, metrics):
        self.calls.append(("epoch", trainer.epoch, sorted(metrics)))

    def on_fit_end(self, trainer):
        self.calls.append(("end",))

    def close(self):
        self.calls.append(("close",))


class Script(rc.Callback):
    """Overwrites a metric with given numbers, before callbacks that come after it."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, trainer, metrics):
        metrics["val_loss"] = self.values[trainer.epoch - 1]


def test_order_of_calls(data):
    recorder = Recorder()
    make().fit(*data, epochs=2, validation=data, callbacks=[recorder])
    metrics = ("loss", "lr", "val_loss", "val_accuracy")
    steps = [[("step", n) for n in range(1, 5)], [("step", n) for n in range(5, 9)]]
    epochs = [("epoch", n, sorted(metrics)) for n in (1, 2)]
    expected = [("begin", 2, 4, 50, metrics), *steps[0], epochs[0], *steps[1], epochs[1], ("end",), ("close",)]
    assert recorder.calls == expected


def test_an_exception_ends_the_fit_and_closes(data):
    class Broken(rc.Callback):
        def on_epoch_end(self, trainer, metrics):
            raise RuntimeError("mine")

    recorder, trainer = Recorder(), make()
    with pytest.raises(RuntimeError, match="mine"):
        trainer.fit(*data, epochs=3, callbacks=[Broken(), recorder])
    assert recorder.calls[-1] == ("close",)
    assert ("end",) not in recorder.calls
    assert trainer.epoch == 1
    trainer.fit(*data, epochs=3)
    assert trainer.epoch == 3


def test_stop_before_the_first_step(data):
    class Never(rc.Callback):
        def on_fit_begin(self, trainer, plan):
            trainer.stop()

    recorder, trainer = Recorder(), make()
    trainer.fit(*data, epochs=3, callbacks=[Never(), recorder])
    assert (trainer.steps, [call[0] for call in recorder.calls]) == (0, ["begin", "end", "close"])
    trainer.fit(*data, epochs=1)
    assert trainer.epoch == 1


@pytest.mark.parametrize("inside", [None, FloatingPointError])
def test_every_callback_is_closed_though_one_fails_to(data, inside):
    class Broken(rc.Callback):
        def on_epoch_end(self, trainer, metrics):
            if inside:
                raise inside("mine")

        def close(self):
            raise OSError("closing")

    recorders, trainer = [Recorder(), Recorder()], make()
    with pytest.raises(OSError, match="closing") as found:
        trainer.fit(*data, epochs=1, callbacks=[recorders[0], Broken(), Broken(), recorders[1]])
    assert all(recorder.calls[-1] == ("close",) for recorder in recorders)
    causes, error = [], found.value
    while error is not None:
        causes.append(type(error))
        error = error.__context__
    assert causes[0] is OSError and (inside is None or inside in causes)


def test_nothing_left_to_do_still_begins_and_ends(data):
    recorder, trainer = Recorder(), make()
    trainer.fit(*data, epochs=2)
    trainer.fit(*data, epochs=2, callbacks=[recorder])
    assert (trainer.steps, [call[0] for call in recorder.calls]) == (8, ["begin", "end", "close"])


def test_one_callback_needs_no_list(data):
    recorder = Recorder()
    make().fit(*data, epochs=1, callbacks=recorder)
    assert recorder.calls
    with pytest.raises(TypeError, match="Callback"):
        make().fit(*data, epochs=1, callbacks=["progress"])


def test_early_stopping_waits_and_restores(data):
    losses = [1.0, 0.5, 0.6, 0.7, 0.4, 0.3]
    kept = {}

    class Keep(rc.Callback):
        def on_epoch_end(self, trainer, metrics):
            kept[trainer.epoch] = {**trainer.net.parameters(), **trainer.net.buffers()}

    for restore, epoch in ((True, 2), (False, 4)):
        trainer, stopping = make(), rc.EarlyStopping(patience=2, restore_best=restore)
        trainer.fit(*data, epochs=6, validation=data, callbacks=[Script(losses), Keep(), stopping])
        assert trainer.epoch == 4
        assert stopping.best_epoch == 2
        now = {**trainer.net.parameters(), **trainer.net.buffers()}
        assert all(np.array_equal(now[name], kept[epoch][name]) for name in now)


def test_early_stopping_min_delta(data):
    trainer = make()
    stopping = rc.EarlyStopping(patience=2, min_delta=0.2)
    trainer.fit(*data, epochs=6, validation=data, callbacks=[Script([1.0, 0.9, 0.85, 0.1, 0.1, 0.1]), stopping])
    assert trainer.epoch == 3


def test_early_stopping_of_an_accuracy_looks_for_the_highest(data):
    class Accuracy(Script):
        def on_epoch_end(self, trainer, metrics):
            metrics["val_accuracy"] = self.values[trainer.epoch - 1]

    trainer, stopping = make(), rc.EarlyStopping(patience=1, monitor="val_accuracy")
    trainer.fit(*data, epochs=6, validation=data, callbacks=[Accuracy([0.1, 0.5, 0.4, 0.9, 1, 1]), stopping])
    assert (trainer.epoch, stopping.best_epoch) == (3, 2)


def test_early_stopping_is_the_same_for_a_resumed_run(data):
    X, y = data
    validation = (X[::-1].copy(), 1 - y[::-1])  # gets worse as training gets better
    whole, parts = make(), make()
    whole.fit(X, y, epochs=9, validation=validation, callbacks=[rc.EarlyStopping(3, restore_best=False)])
    for epochs in (1, 2, 9):
        parts.fit(X, y, epochs=epochs, validation=validation, callbacks=[rc.EarlyStopping(3, restore_best=False)])
    assert whole.epoch == parts.epoch < 9


def test_early_stopping_of_what_is_not_measured(data):
    trainer = make()
    with pytest.raises(ValueError, match=r"val_loss.*validation"):
        trainer.fit(*data, epochs=2, callbacks=[rc.EarlyStopping(monitor="val_loss")])
    assert trainer.steps == 0


def test_checkpoint_every_few_steps(data, tmp_path):
    path = tmp_path / "run.safetensors"
    whole = make()
    whole.fit(*data, epochs=3, callbacks=[rc.Checkpoint(path, every=5)])
    resumed = rc.Trainer.resume(path)
    assert resumed.steps == 10
    resumed.fit(*data, epochs=3)
    assert all(np.array_equal(a, whole.net.parameters()[n]) for n, a in resumed.net.parameters().items())


def test_checkpoint_each_epoch_under_its_own_name(data, tmp_path):
    make().fit(*data, epochs=2, callbacks=[rc.Checkpoint(tmp_path / "{epoch}-{step}.safetensors")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1-4.safetensors", "2-8.safetensors"]


def test_logs(data, tmp_path):
    trainer = make()
    loggers = [rc.CSVLogger(tmp_path / "log.csv"), rc.JSONLLogger(tmp_path / "log.jsonl")]
    trainer.fit(*data, epochs=1, callbacks=loggers)
    trainer.fit(*data, epochs=3, validation=data, callbacks=loggers)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == trainer.history["loss"]
    assert rows[0]["val_loss"] == ""
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == trainer.history["loss"]
    assert lines[0]["val_loss"] is None
    assert len(list(tmp_path.iterdir())) == 2


def test_logs_of_a_resumed_run_are_the_same_file(data, tmp_path):
    make().fit(*data, epochs=3, callbacks=[rc.CSVLogger(tmp_path / "whole.csv")])
    trainer = make()
    trainer.fit(*data, epochs=1, callbacks=[rc.CSVLogger(tmp_path / "parts.csv")])
    trainer.fit(*data, epochs=3, callbacks=[rc.CSVLogger(tmp_path / "parts.csv")])
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_line_an_epoch_without_a_terminal(data):
    stream = io.StringIO()
    make().fit(*data, epochs=2, validation=data, callbacks=[rc.Progress(stream)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    for word in ("epoch 2/2", "loss ", "val_accuracy ", "rows/s"):
        assert word in lines[1]
    assert "\r" not in stream.getvalue()


def test_progress_is_a_bar_on_a_terminal(data, monkeypatch):
    monkeypatch.setattr("resnetcore.progress._INTERVAL", 0)
    stream = Terminal()
    make().fit(*data, epochs=1, callbacks=[rc.Progress(stream)])
    text = stream.getvalue()
    assert "[######" in text
    assert " 50%" in text
    assert "left" in text
    assert text.endswith("\n")


def test_progress_clears_its_bar_after_ctrl_c(data, monkeypatch):
    monkeypatch.setattr("resnetcore.progress._INTERVAL", 0)

    class Stop(rc.Callback):
        def on_step_end(self, trainer, loss):
            raise KeyboardInterrupt

    stream = Terminal()
    with pytest.raises(KeyboardInterrupt):
        make().fit(*data, epochs=1, callbacks=[rc.Progress(stream), Stop()])
    assert stream.getvalue().endswith("\r")


def test_progress_of_an_iterable_that_does_not_know_its_length(data, monkeypatch):
    monkeypatch.setattr("resnetcore.progress._INTERVAL", 0)
    stream = Terminal()
    make().fit((batch for batch in [data]), epochs=1, callbacks=[rc.Progress(stream)])
    assert "1 steps" in stream.getvalue()


def test_progress_is_quiet_unless_asked(data, capsys):
    make().fit(*data, epochs=1)
    assert capsys.readouterr().err == ""
    make().fit(*data, epochs=1, progress=True)
    assert "epoch 1/1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "build, error",
    [
        (lambda: rc.EarlyStopping(0), ValueError),
        (lambda: rc.EarlyStopping(True), TypeError),
        (lambda: rc.EarlyStopping(min_delta=-1.0), ValueError),
        (lambda: rc.EarlyStopping(mode="lowest"), ValueError),
        (lambda: rc.EarlyStopping(monitor=5), TypeError),
        (lambda: rc.Checkpoint("x", every=0), ValueError),
        (lambda: rc.Checkpoint("x", every=1.5), TypeError),
    ],
)
def test_bad_arguments(build, error):
    with pytest.raises(error):
        build()


@pytest.mark.parametrize("order", ["stopping first", "checkpoint first"])
@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_early_stopping_of_a_resumed_run_restores_the_same_weights(tmp_path, at, order):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((120, 6)).astype("float32"), rng.integers(0, 3, 120)
    held_out = rng.standard_normal((60, 6)).astype("float32"), rng.integers(0, 3, 60)

    def fit(trainer, epochs):
        stopping = rc.callbacks.EarlyStopping(patience=4)
        checkpoint = rc.callbacks.Checkpoint(tmp_path / "at-{epoch}.safetensors")
        callbacks = [stopping, checkpoint] if order == "stopping first" else [checkpoint, stopping]
        trainer.fit(X, y, epochs, validation=held_out, callbacks=callbacks)
        return stopping

    def make():
        return rc.Trainer(rc.models.plain(6, 3, 24, 4, seed=1), optimizer=rc.SGD(lr=0.05, momentum=0.9), batch_size=32)

    whole = make()
    best = fit(whole, 40).best_epoch
    assert 1 < best < whole.epoch < 40
    resumed = rc.Trainer.resume(tmp_path / f"at-{at}.safetensors")
    assert fit(resumed, 40).best_epoch == best
    assert resumed.epoch == whole.epoch
    for name, value in whole.net.parameters().items():
        assert np.array_equal(value, resumed.net.parameters()[name])


def test_a_log_of_an_infinite_loss_is_json(data, tmp_path):
    X, _ = data
    trainer = rc.Trainer(rc.models.plain(4, 1, 8, 3, dtype="float64"), "mse", rc.SGD(lr=1e-3))
    with np.errstate(over="ignore"):
        trainer.fit(X, X[:, 0], validation=(X, X[:, 0] * 1e200), callbacks=rc.JSONLLogger(tmp_path / "log.jsonl"))
    assert trainer.history["val_loss"] == [np.inf]

    def refuse(name):
        pytest.fail(f"{name} is not JSON")

    assert json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)["val_loss"] is None


def test_the_path_of_a_checkpoint(data, tmp_path):
    X, y = data
    make().fit(X, y, callbacks=rc.Checkpoint(bytes(tmp_path / "{epoch}.safetensors")))
    assert (tmp_path / "1.safetensors").exists()


@pytest.mark.parametrize("callback", [rc.Checkpoint, rc.CSVLogger, rc.JSONLLogger])
def test_a_folder_that_is_missing_is_found_before_the_first_step(data, tmp_path, callback):
    X, y = data
    trainer = make()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.fit(X, y, callbacks=callback(tmp_path / "nowhere" / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        trainer.fit(X, y, callbacks=callback(tmp_path / "file" / "file"))
    assert trainer.steps == 0
    for bad in (5, None):
        with pytest.raises(TypeError):
            callback(bad)


def test_a_least_improvement_that_is_none():
    for bad in ("a", True, None):
        with pytest.raises(rc.DTypeError, match="min_delta must be a number"):
            rc.EarlyStopping(min_delta=bad)
    assert type(rc.EarlyStopping(min_delta=np.float32(0.5)).min_delta) is float
